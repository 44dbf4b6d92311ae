"""Schedules in the store: ``<root>/schedules/declared/<name>.json``, and how far each of them has been decided.

The cursor ``<root>/schedules/cursors/<name>.json`` only saves work: what keeps a date from being run twice is the
conditional write of its run (``workers.schedules.runs``). Everything a ticker looks at in each of its passes lies in
three folders that it lists, so that a pass costs the same whatever there is of history.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from generator.errors import SpecError
from generator.spec.canonical import FrozenModel, read_json, short_repr, validate
from generator.spec.recipe import Digest, Name
from generator.store import pointers
from generator.store.base import Store
from workers.schedules.schedule import Schedule

log = logging.getLogger(__name__)

DECLARED = "schedules/declared/"
CURSORS = "schedules/cursors/"
MAX_STORED_BYTES = 4 * 2**20
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class StoredSchedule(FrozenModel):
    """A schedule as it is kept. ``source``: digest of the file that it came from. Dates later than ``since`` count.

    ``held``: somebody said ``pause``. ``added``: when this version of it was declared.
    """

    kept_version: int = 1
    schedule: Schedule
    source: Digest
    since: AwareDatetime
    added: AwareDatetime
    held: bool = False

    @property
    def paused(self) -> bool:
        return self.held or self.schedule.paused


class Cursor(FrozenModel):
    """Every date up to ``through`` has been decided."""

    schedule: Name
    through: AwareDatetime


def read_stored(root: Store, name: str) -> StoredSchedule | None:
    """The schedule ``name``; ``None`` where there is none. Raises ``SpecError`` for one that is damaged."""
    return _parse_stored(name, pointers.read(root, _key(DECLARED, name), MAX_STORED_BYTES))


def require_stored(root: Store, name: str) -> StoredSchedule:
    """As ``read_kept``; raises ``SpecError`` where there is none."""
    found = read_stored(root, name)
    if found is None:
        known = ", ".join(sorted(schedule_names(root))[:10]) or "none yet"
        raise SpecError("schedule", f"one of the schedules of {root.url} ({known})", repr(name[:100]))
    return found


def update_stored(
    root: Store, name: str, change: Callable[[StoredSchedule | None], StoredSchedule | None]
) -> StoredSchedule | None:
    """Change a schedule by compare and swap; ``change`` returns ``None`` to leave it. How it is then."""

    def decided(data: bytes | None) -> bytes | None:
        wanted = change(_parse_stored(name, data))
        return None if wanted is None else wanted.canonical()

    return _parse_stored(name, pointers.move(root, _key(DECLARED, name), decided, MAX_STORED_BYTES))


def remove_schedule(root: Store, name: str) -> None:
    """Remove a schedule; its runs stay, and those that are going on go on."""
    root.delete(_key(DECLARED, name))
    root.delete(_key(CURSORS, name))


def schedule_names(root: Store) -> Iterator[str]:
    """The names of all schedules, ascending."""
    return (name for name, _ in names_and_etags(root, DECLARED))


def names_and_etags(root: Store, folder: str) -> Iterator[tuple[str, str]]:
    """Name and etag of each object in a folder; nothing is read."""
    for info in root.list(folder):
        yield info.key.removeprefix(folder).removesuffix(".json"), info.etag


def read_cursor(root: Store, name: str) -> datetime | None:
    """How far the schedule has been decided; ``None`` where that is not known."""
    data = pointers.read(root, _key(CURSORS, name), MAX_STORED_BYTES)
    try:
        return None if data is None else _parse_cursor(name, data).through
    except SpecError as damaged:
        log.warning("%s; the schedule is looked at from its beginning", damaged)
        return None


def move_cursor(root: Store, name: str, seen: datetime | None, through: datetime) -> None:
    """Move the cursor on from ``seen``; nothing happens where somebody else has moved it meanwhile."""

    def decided(data: bytes | None) -> bytes | None:
        try:
            now = None if data is None else _parse_cursor(name, data).through
        except SpecError:
            now = None
        return Cursor(schedule=name, through=through).canonical() if now == seen else None

    pointers.move(root, _key(CURSORS, name), decided, MAX_STORED_BYTES)


def _parse_cursor(name: str, data: bytes) -> Cursor:
    field = _key(CURSORS, name)
    return validate(Cursor, read_json(data, field=field, error=SpecError), field=field, error=SpecError)


def _parse_stored(name: str, data: bytes | None) -> StoredSchedule | None:
    if data is None:
        return None
    field = _key(DECLARED, name)
    kept = validate(StoredSchedule, read_json(data, field=field, error=SpecError), field=field, error=SpecError)
    if kept.schedule.name != name:
        raise SpecError(field, f"the schedule {name}", f"that of {kept.schedule.name}")
    return kept


def _key(folder: str, name: str) -> str:
    try:
        return f"{folder}{_NAME.validate_python(name)}.json"
    except ValidationError as wrong:
        expected = "a name of small letters, digits, _ and -, at most 63"
        raise SpecError("schedule", expected, short_repr(name)) from wrong
