"""Helpers for the arguments of dataset commands: a dataset's store, a build prefix, the current user, a date."""

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

_MIN_DIGITS = 4  # length of the shortest build prefix that is accepted


def dataset_at(url: str, settings: Settings) -> tuple[Store, str | None]:
    """The store of the dataset at ``url``, and the build's name if ``url`` is that of a build."""
    from generator.store import absolute_url, open_store

    dataset, _, build = absolute_url(url).partition("/builds/")
    return open_store(dataset, settings.s3), build or None


def match_build(store: Store, text: str) -> str:
    """The only build whose name starts with ``text`` (at least four digits). Raises ``DatasetError``."""
    from generator.datasets.builds import list_builds
    from generator.errors import DatasetError
    from generator.spec.canonical import short_repr

    found = [build for build in list_builds(store) if build.startswith(text)]
    if len(text) < _MIN_DIGITS or len(found) != 1:
        got = f"{short_repr(text)}, the start of {len(found) or 'no'} build name(s)"
        raise DatasetError("build", f"a build of {store.url}, or its first digits ({_MIN_DIGITS} or more)", got)
    return found[0]


def newest_build(store: Store) -> str:
    """The newest committed build that its gates did not refuse. Raises ``DatasetError``."""
    from generator.curation.retention import read_committed_builds
    from generator.errors import DatasetError

    def sort_key(committed: CommittedBuild) -> tuple[datetime, str]:
        return committed.date, committed.build

    ready = [committed for committed in read_committed_builds(store) if not committed.refused]
    if not ready:
        raise DatasetError("dataset", "a committed build that its gates did not refuse", f"none at {store.url}")
    return max(ready, key=sort_key).build


def current_user() -> str:
    """``user@host``, recorded in the history of datasets and channels (printable ASCII, at most 200 characters)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        user = "somebody"
    return re.sub(r"[^\x20-\x7e]", "?", f"{user}@{socket.gethostname()}")[:200]


def parse_moment(text: str | None) -> datetime | None:
    """The logical date in ``text``, in UTC; without an offset it is UTC already. Raises ``SpecError``."""
    from generator.errors import SpecError
    from generator.spec.canonical import short_repr

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise SpecError("date", "a date or a moment: 2026-07-01, 2026-07-01T04:00+02:00", short_repr(text)) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
