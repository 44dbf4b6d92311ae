"""Bringing a schedule into the store: checked against its bundle and its next dates first, then made self-contained."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from generator.curation.gates import Gates
from generator.errors import SourceError, SpecError
from generator.models.bundle import push
from generator.spec.recipe import Digest
from generator.store.base import Store
from workers.notifications import check_hosts
from workers.schedules.new_run import Pinned, pin
from workers.schedules.schedule import Schedule
from workers.schedules.store import Kept, change_kept, read_kept
from workers.settings import Settings

_CHECKED_DATES = 3
_BEFORE = timedelta(seconds=1)
_NO_PLACES = ("digits", "test")  # of sources: the bundled one, a split


def check(schedule: Schedule, root: Store, settings: Settings, now: datetime) -> list[Pinned]:
    """The jobs of the next dates of ``schedule``, as they would be now. Nothing is written.

    Raises ``InputError`` for whatever would fail later on, and for a schedule that has no date left.
    """
    check_hosts(schedule.notifications, settings)
    dates = schedule.upcoming(now, _CHECKED_DATES)
    if not dates:
        raise SpecError("end", "a date to come before it", f"{schedule.end}, after which {schedule.cron} never comes")
    return [pin(schedule, date, root, settings) for date in dates]


def declare(
    schedule: Schedule, source: Digest, root: Store, settings: Settings, now: datetime, *, replace: bool = False
) -> Kept:
    """Keep ``schedule``, which came from a file with the digest ``source``. Doing it twice changes nothing.

    A bundle that lies elsewhere is pushed to the root first, and places become absolute. Raises ``InputError`` before
    anything is written; of a schedule of that name that is kept already with other content only with ``replace`` it is
    the new one that stays.
    """
    jobs = check(schedule, root, settings, now)
    _refuse_other(read_kept(root, schedule.name), source, replace)
    whole = _self_contained(schedule, jobs[0], root)

    def decided(held: Kept | None) -> Kept | None:
        _refuse_other(held, source, replace)
        if held is not None and held.source == source:
            return None
        fresh = Kept(schedule=whole, source=source, since=_since(whole, held, now), added=now)
        return fresh if held is None else fresh.model_copy(update={"held": held.held})

    kept = change_kept(root, schedule.name, decided)
    assert kept is not None
    return kept


def not_here(schedule: Schedule) -> list[str]:
    """Places of its gates where this machine has no real images; that of the ticker that judges has to have them."""
    return [place for place in _places(schedule.gates).values() if not _is_source(_absolute(place))]


def _is_source(place: str) -> bool:
    from generator.sources import kind_of

    try:
        kind_of(place)
    except SourceError:
        return False
    return True


def _refuse_other(held: Kept | None, source: Digest, replace: bool) -> None:
    if held is None or replace or held.source == source:
        return
    expected = "a name that no other schedule has"
    got = f"{held.schedule.name}, added {held.added:%Y-%m-%d %H:%M} UTC with other content"
    raise SpecError("name", expected, got, "choose another name, or say --replace")


def _since(schedule: Schedule, held: Kept | None, now: datetime) -> datetime:
    """From when on dates count: from its ``start`` or now; one that is due at other times than before, from now."""
    begins = schedule.begins
    if held is None:
        return now if begins is None else begins - _BEFORE
    before = held.schedule
    same = (before.cron, before.timezone, before.begins) == (schedule.cron, schedule.timezone, begins)
    return held.since if same else now


def _self_contained(schedule: Schedule, job: Pinned, root: Store) -> Schedule:
    """``schedule`` with places that mean the same to every ticker."""
    changed = dict(schedule.job)
    bundle = changed.get("bundle")
    if isinstance(bundle, str) and "{" not in bundle:
        if not bundle.startswith("sha256:"):
            push(job.bundle, root)
        changed["bundle"] = job.spec.recipe.bundle
    elif isinstance(bundle, str):
        changed["bundle"] = _absolute(bundle)
    changed["destination"] = _absolute(str(changed["destination"]))
    return schedule.model_copy(update={"job": changed, "gates": _compared_with(schedule.gates)})


def _compared_with(gates: Gates | None) -> Gates | None:
    """``gates`` with sources of real images that every ticker of this machine finds."""
    if gates is None or gates.reference is None:
        return gates
    update = {name: _absolute(place) for name, place in _places(gates).items()}
    return gates.model_copy(update={"reference": gates.reference.model_copy(update=update)})


def _places(gates: Gates | None) -> dict[str, str]:
    """The fields of the reference that name a place, and those places."""
    if gates is None or gates.reference is None:
        return {}
    fields = {"source": gates.reference.source, "test": gates.reference.test}
    return {name: place for name, place in fields.items() if place is not None and place not in _NO_PLACES}


def _absolute(place: str) -> str:
    """A path, which may hold templates, from the root of the file system; a URL as it is."""
    if "://" in place or place.startswith("sha256:"):
        return place
    return os.path.abspath(Path(place).expanduser())  # noqa: PTH100
