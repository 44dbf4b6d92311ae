"""OpenLineage events of scheduled runs (https://openlineage.io), sent to a file or over HTTP."""

from workers.openlineage.events import RunFacts, event_document
from workers.openlineage.transport import send

__all__ = ["RunFacts", "event_document", "send"]
