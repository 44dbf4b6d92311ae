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
from workers.schedules.new_run import ResolvedJob, resolve_job
from workers.schedules.schedule import Schedule
from workers.schedules.store import StoredSchedule, read_stored, update_stored
from workers.settings import Settings

_CHECKED_DATES = 3
_SECOND = timedelta(seconds=1)
_SPECIAL_SOURCES = ("digits", "test")  # of sources: the bundled one, a split


def check_schedule(schedule: Schedule, root: Store, settings: Settings, now: datetime) -> list[ResolvedJob]:
    """The jobs of the next dates of ``schedule``, as they would be now. Nothing is written.

    Raises ``InputError`` for whatever would fail later on, and for a schedule that has no date left.
    """
    check_hosts(schedule.notifications, settings)
    dates = schedule.upcoming(now, _CHECKED_DATES)
    if not dates:
        raise SpecError("end", "a date to come before it", f"{schedule.end}, after which {schedule.cron} never comes")
    return [resolve_job(schedule, date, root, settings) for date in dates]


def declare(
    schedule: Schedule, source: Digest, root: Store, settings: Settings, now: datetime, *, replace: bool = False
) -> StoredSchedule:
    """Keep ``schedule``, which came from a file with the digest ``source``. Doing it twice changes nothing.

    A bundle that lies elsewhere is pushed to the root first, and places become absolute. Raises ``InputError`` before
    anything is written; of a schedule of that name that is kept already with other content only with ``replace`` it is
    the new one that stays.
    """
    jobs = check_schedule(schedule, root, settings, now)
    _check_name_free(read_stored(root, schedule.name), source, replace)
    whole = _make_self_contained(schedule, jobs[0], root)

    def decided(held: StoredSchedule | None) -> StoredSchedule | None:
        _check_name_free(held, source, replace)
        if held is not None and held.source == source:
            return None
        fresh = StoredSchedule(schedule=whole, source=source, since=_counts_from(whole, held, now), added=now)
        return fresh if held is None else fresh.model_copy(update={"held": held.held})

    kept = update_stored(root, schedule.name, decided)
    assert kept is not None
    return kept


def missing_references(schedule: Schedule) -> list[str]:
    """Places of its gates where this machine has no real images; that of the ticker that judges has to have them."""
    return [place for place in _reference_sources(schedule.gates).values() if not _is_source(_absolute(place))]


def _is_source(place: str) -> bool:
    from generator.sources import source_kind

    try:
        source_kind(place)
    except SourceError:
        return False
    return True


def _check_name_free(held: StoredSchedule | None, source: Digest, replace: bool) -> None:
    if held is None or replace or held.source == source:
        return
    expected = "a name that no other schedule has"
    got = f"{held.schedule.name}, added {held.added:%Y-%m-%d %H:%M} UTC with other content"
    raise SpecError("name", expected, got, "choose another name, or say --replace")


def _counts_from(schedule: Schedule, held: StoredSchedule | None, now: datetime) -> datetime:
    """From when on dates count: from its ``start`` or now; one that is due at other times than before, from now."""
    begins = schedule.start_utc
    if held is None:
        return now if begins is None else begins - _SECOND
    before = held.schedule
    same = (before.cron, before.timezone, before.start_utc) == (schedule.cron, schedule.timezone, begins)
    return held.since if same else now


def _make_self_contained(schedule: Schedule, job: ResolvedJob, root: Store) -> Schedule:
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
    return schedule.model_copy(update={"job": changed, "gates": _with_absolute_references(schedule.gates)})


def _with_absolute_references(gates: Gates | None) -> Gates | None:
    """``gates`` with sources of real images that every ticker of this machine finds."""
    if gates is None or gates.reference is None:
        return gates
    update = {name: _absolute(place) for name, place in _reference_sources(gates).items()}
    return gates.model_copy(update={"reference": gates.reference.model_copy(update=update)})


def _reference_sources(gates: Gates | None) -> dict[str, str]:
    """The fields of the reference that name a place, and those places."""
    if gates is None or gates.reference is None:
        return {}
    fields = {"source": gates.reference.source, "test": gates.reference.test}
    return {name: place for name, place in fields.items() if place is not None and place not in _SPECIAL_SOURCES}


def _absolute(place: str) -> str:
    """A path, which may hold templates, from the root of the file system; a URL as it is."""
    if "://" in place or place.startswith("sha256:"):
        return place
    return os.path.abspath(Path(place).expanduser())  # noqa: PTH100
