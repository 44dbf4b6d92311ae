"""What commands about one dataset share: its store, a build by the beginning of its name, and who asks."""

from __future__ import annotations

import getpass
import re
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generator.curation.retention import CommittedBuild
    from generator.store import Store
    from workers.settings import Settings

_MIN_DIGITS = 4  # digits that name a build


def dataset_at(url: str, settings: Settings) -> tuple[Store, str | None]:
    """The store of the dataset at ``url``, and the build that ``url`` names, if it is that of a build."""
    from generator.store import absolute_url, open_store

    dataset, _, build = absolute_url(url).partition("/builds/")
    return open_store(dataset, settings.s3), build or None


def match_build(store: Store, text: str) -> str:
    """The build whose name begins with ``text``, at least four digits. Raises ``DatasetError``."""
    from generator.datasets.builds import list_builds
    from generator.errors import DatasetError
    from generator.spec.canonical import short_repr

    found = [build for build in list_builds(store) if build.startswith(text)]
    if len(text) < _MIN_DIGITS or len(found) != 1:
        got = f"{short_repr(text)}, which {len(found) or 'none'} of them begin with"
        raise DatasetError("build", f"a build of {store.url}, or its first digits ({_MIN_DIGITS} or more)", got)
    return found[0]


def newest_build(store: Store) -> str:
    """The newest committed build that its gates did not keep back. Raises ``DatasetError``."""
    from generator.curation.retention import read_committed_builds
    from generator.errors import DatasetError

    def order(held: CommittedBuild) -> tuple[datetime, str]:
        return held.date, held.build

    ready = [held for held in read_committed_builds(store) if not held.refused]
    if not ready:
        raise DatasetError("dataset", "a committed build that its gates did not keep back", f"none at {store.url}")
    return max(ready, key=order).build


def current_user() -> str:
    """The person at this terminal, for the history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container with a user that has no name
        user = "somebody"
    return re.sub(r"[^\x20-\x7e]", "?", f"{user}@{socket.gethostname()}")[:200]


def parse_moment(text: str | None) -> datetime | None:
    """A logical date as a user writes it; without an offset it is UTC. Raises ``SpecError``."""
    from generator.errors import SpecError
    from generator.spec.canonical import short_repr

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as wrong:
        raise SpecError("date", "a date or a moment: 2026-07-01, 2026-07-01T04:00+02:00", short_repr(text)) from wrong
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
