"""Which sources of real images, of those that the gates of a schedule name, are not on this machine."""

from __future__ import annotations

from generator.errors import SourceError
from generator.sources import source_kind
from workers.schedules.declare import absolute_location, reference_sources
from workers.schedules.schedule import Schedule


def missing_references(schedule: Schedule) -> list[str]:
    """Reference sources of its gates that do not exist on this machine; the ticker's machine needs them."""
    found = reference_sources(schedule.gates).values()
    return [location for location in found if not _is_source(absolute_location(location))]


def _is_source(location: str) -> bool:
    if location.startswith("s3://"):
        return True  # the scheduler looks there, with its own permissions
    try:
        source_kind(location)
    except SourceError:
        return False
    return True
