"""Schedules in the store (``<root>/schedules/declared/<name>.json``), and a cursor for each of them.

The cursor ``<root>/schedules/cursors/<name>.json`` only saves work: the conditional write of a run is what prevents a
second run of the same date (``workers.schedules.runs``). A ticker's pass lists three folders and reads what changed in
them, so its cost does not grow with the history.
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
    """A schedule as stored. ``source``: digest of the file that it came from. Dates later than ``since`` are run.

    ``held``: paused by ``latentmill schedule pause``. ``added``: when this version was declared.
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
    """The schedule ``name``; ``None`` if there is none. Raises ``SpecError`` for a damaged one."""
    return _parse_stored(name, pointers.read(root, _key(DECLARED, name), MAX_STORED_BYTES))


def require_stored(root: Store, name: str) -> StoredSchedule:
    """Like ``read_stored``; raises ``SpecError`` if there is none."""
    found = read_stored(root, name)
    if found is None:
        known = ", ".join(sorted(schedule_names(root))[:10]) or "none yet"
        raise SpecError("schedule", f"one of the schedules of {root.url} ({known})", repr(name[:100]))
    return found


def update_stored(
    root: Store, name: str, change: Callable[[StoredSchedule | None], StoredSchedule | None]
) -> StoredSchedule | None:
    """Change a schedule by compare and swap; returns the result. ``change`` returns ``None`` to leave it as it is."""

    def swap(data: bytes | None) -> bytes | None:
        changed = change(_parse_stored(name, data))
        return None if changed is None else changed.canonical()

    return _parse_stored(name, pointers.move(root, _key(DECLARED, name), swap, MAX_STORED_BYTES))


def remove_schedule(root: Store, name: str) -> None:
    """Remove a schedule; its runs stay, and unfinished ones continue."""
    root.delete(_key(DECLARED, name))
    root.delete(_key(CURSORS, name))


def schedule_names(root: Store) -> Iterator[str]:
    """The names of all schedules, ascending."""
    return (name for name, _ in names_and_etags(root, DECLARED))


def names_and_etags(root: Store, folder: str) -> Iterator[tuple[str, str]]:
    """Name and etag of each object in a folder, ascending; reads no object."""
    for info in sorted(root.list(folder), key=lambda info: info.key):
        yield info.key.removeprefix(folder).removesuffix(".json"), info.etag


def read_cursor(root: Store, name: str) -> datetime | None:
    """The last date that has been decided; ``None`` if unknown."""
    data = pointers.read(root, _key(CURSORS, name), MAX_STORED_BYTES)
    try:
        return None if data is None else _parse_cursor(name, data).through
    except SpecError as error:
        log.warning("%s; all dates of the schedule are checked again", error)
        return None


def move_cursor(root: Store, name: str, seen: datetime | None, through: datetime) -> None:
    """Move the cursor from ``seen`` to ``through``; does nothing if another ticker has moved it meanwhile."""

    def swap(data: bytes | None) -> bytes | None:
        try:
            current = None if data is None else _parse_cursor(name, data).through
        except SpecError:
            current = None
        return Cursor(schedule=name, through=through).canonical() if current == seen else None

    pointers.move(root, _key(CURSORS, name), swap, MAX_STORED_BYTES)


def _parse_cursor(name: str, data: bytes) -> Cursor:
    field = _key(CURSORS, name)
    return validate(Cursor, read_json(data, field=field, error=SpecError), field=field, error=SpecError)


def _parse_stored(name: str, data: bytes | None) -> StoredSchedule | None:
    if data is None:
        return None
    field = _key(DECLARED, name)
    stored = validate(StoredSchedule, read_json(data, field=field, error=SpecError), field=field, error=SpecError)
    if stored.schedule.name != name:
        raise SpecError(field, f"the schedule {name}", f"that of {stored.schedule.name}")
    return stored


def _key(folder: str, name: str) -> str:
    try:
        return f"{folder}{_NAME.validate_python(name)}.json"
    except ValidationError as error:
        expected = "a name of at most 63 lowercase letters, digits, _ and -"
        raise SpecError("schedule", expected, short_repr(name)) from error
