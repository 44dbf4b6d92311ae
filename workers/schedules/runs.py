"""Runs: one object in the store for each logical date of a schedule, ``<root>/schedules/runs/<name>/<date>.json``.

Runs are created and changed by conditional writes only: each date has at most one run, however many tickers are
active, and any ticker can continue a run whose ticker died. A run holds everything it needs: the bundle's digest, the
whole job, its gates. An unfinished run has a marker ``<root>/schedules/live/<name>/<date>.<take>``, written before the
run and removed after its last chore; tickers list the markers to find their work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, Field

from generator.curation.gates import Gates
from generator.curation.retention import Retention
from generator.errors import AlreadyExists, SpecError
from generator.spec.canonical import MAX_JSON_BYTES, FrozenModel, GrowingModel, Later, read_json, validate
from generator.spec.recipe import JobSpec, Name
from generator.store import pointers
from generator.store.base import Store
from workers.notifications import Notifications
from workers.schedules.cron import date_key, parse_date_key
from workers.schedules.schedule import Overlap

RUNS = "schedules/runs/"
LIVE_MARKERS = "schedules/live/"
MAX_TEXT = 4000
MAX_EARLIER = 20  # takes of a run that are remembered
_MARKER_NAME = re.compile(r"([a-z0-9_-]{1,63})/([0-9]{8}T[0-9]{6}Z)\.([0-9]{1,6})")

Origin = Literal["schedule", "hand", "backfill"]
State = Literal[
    "created", "submitted", "committed", "judged",
    "promoted", "kept", "refused", "failed", "skipped", "replaced", "cancelled",
]  # fmt: skip
ENDED_STATES = frozenset({"promoted", "kept", "refused", "failed", "skipped", "replaced", "cancelled"})
Chore = Literal["retain", "succeeded", "failed", "refused", "at_risk"]
SkipReason = Literal["", "missed", "overlap", "paused"]


class EarlierTake(FrozenModel):
    """What came of one take of a run that was restarted. ``dataset``: its URL; with ``build`` and ``job`` empty where
    no job was known."""

    take: int = Field(ge=1, le=999_999)
    origin: Origin
    state: State
    reason: str = Field(default="", max_length=2 * MAX_TEXT)
    dataset: str = ""
    build: str = ""
    job: str = ""
    created: AwareDatetime
    ended: AwareDatetime | None = None


class Run(GrowingModel):
    """One date of one schedule.

    ``take``: number of the attempt; a restart increments it. ``spec``: the resolved job, fixed when the run is created;
    ``None`` if resolving failed or the run was skipped. State ``kept``: the gates hold, but ``latest`` did not move,
    for the ``reason`` given. ``before``: when the same job had already been
    submitted, in seconds since the epoch; 0 if it had not. ``until``: a skipped run covers every date from ``date`` to
    this one. ``chores``: tasks left after a state was reached. ``held_by``: the ticker that works on it in the
    background; the hold expires at ``held_until``. ``earlier``: the takes before this one, the last ``MAX_EARLIER``,
    ascending; those that earlier releases restarted are not in it.
    ``without_job``: the tenant of a run without a ``spec``; empty if it has one, or is of an earlier release.
    """

    run_version: int = 1
    schedule: Name
    date: AwareDatetime
    zone: str = "UTC"
    origin: Origin = "schedule"
    state: State
    take: int = Field(default=1, ge=1, le=999_999)
    why: SkipReason = ""  # for which a skipped run was skipped
    reason: str = Field(default="", max_length=2 * MAX_TEXT)
    note: str = Field(default="", max_length=2 * MAX_TEXT)  # what an unfinished run waits for
    until: AwareDatetime | None = None
    spec: JobSpec | None = None
    channel: str | None = None
    before: float = Field(default=0.0, ge=0.0)
    overlap: Overlap = "queue"
    deadline: AwareDatetime | None = None
    at_risk: str = Field(default="", max_length=MAX_TEXT)
    promote: bool = True
    gates: Gates | None = None
    retention: Retention | None = None
    notifications: Notifications = Notifications()
    created: AwareDatetime
    submitted: AwareDatetime | None = None
    committed: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    chores: tuple[Chore, ...] = ()
    held_by: str = Field(default="", max_length=200)
    held_until: AwareDatetime | None = None
    earlier: Annotated[tuple[EarlierTake, ...], Later()] = ()
    without_job: Annotated[str, Later()] = ""

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED_STATES

    @property
    def is_done(self) -> bool:
        """Whether it has ended and no chores are left."""
        return self.has_ended and not self.chores

    @property
    def tenant(self) -> str:
        """The tenant of its schedule when it was created, who may have given the name away since; empty if unknown."""
        return self.spec.order.tenant if self.spec else self.without_job

    @property
    def marker(self) -> RunMarker:
        return RunMarker(self.schedule, self.date, self.take)

    @property
    def dataset(self) -> str:
        """URL of its dataset; empty before that is known."""
        return f"{self.spec.order.destination}/{self.spec.order.name}" if self.spec else ""

    @property
    def url(self) -> str:
        """URL of its build; empty before that is known."""
        return f"{self.dataset}/builds/{self.spec.build_id}" if self.spec else ""

    def with_state(self, state: State, now: datetime, **update: object) -> Run:
        """A copy in another state, with its time recorded and the hold released."""
        clock = state if state in ("submitted", "committed") else "ended" if state in ENDED_STATES else None
        times = {clock: now} if clock else {}
        base = {"state": state, "note": "", "held_by": "", "held_until": None}
        return self.model_copy(update=base | times | update)


class RunMarker(NamedTuple):
    """Identifies one attempt (``take``) of one run."""

    schedule: str
    date: datetime
    take: int


def create_run(root: Store, run: Run) -> bool:
    """Store a new run; ``False`` if its date has one already."""
    if not run.is_done:
        _create_marker(root, run.marker)
    try:
        root.create(_key(run.schedule, run.date), run.canonical())
    except AlreadyExists:
        return read_run(root, run.schedule, run.date) == run  # True: our own write, whose response was lost
    if not run.is_done:
        _create_marker(root, run.marker)  # again: another ticker may have removed it as stale meanwhile
    return True


def update_run(root: Store, name: str, date: datetime, change: Callable[[Run], Run | None]) -> Run | None:
    """Change a run, if it exists, by compare and swap; returns the result. ``change`` returns ``None`` to keep it."""

    def swap(data: bytes | None) -> bytes | None:
        run = _parse_run(data, name, date)
        changed = None if run is None else change(run)
        return None if changed is None else changed.canonical()

    return _parse_run(pointers.move(root, _key(name, date), swap, MAX_JSON_BYTES), name, date)


def restart_run(root: Store, run: Run, fresh: Run) -> Run | None:
    """Replace an ended run by ``fresh``, as its next take; ``None`` if the run has changed meanwhile.

    The result remembers what came of ``run`` and of the takes before it, unless they are another tenant's.
    """
    is_own = run.tenant in ("", fresh.tenant)
    earlier = (*run.earlier, _remember(run))[-MAX_EARLIER:] if is_own else ()
    again = fresh.model_copy(update={"take": run.take + 1, "earlier": earlier})
    _create_marker(root, again.marker)
    return (
        again if update_run(root, run.schedule, run.date, lambda now: again if now == run else None) == again else None
    )


def read_run(root: Store, name: str, date: datetime) -> Run | None:
    """The run of a date, if there is one. Raises ``SpecError`` for a damaged one."""
    return _parse_run(pointers.read(root, _key(name, date), MAX_JSON_BYTES), name, date)


def live_markers(root: Store) -> Iterator[tuple[RunMarker, datetime]]:
    """The markers of runs that may have work left, and when each was written."""
    for info in sorted(root.list(LIVE_MARKERS), key=lambda info: info.key):
        if match := _MARKER_NAME.fullmatch(info.key.removeprefix(LIVE_MARKERS)):
            yield RunMarker(match[1], parse_date_key(match[2]), int(match[3])), info.modified


def remove_marker(root: Store, marker: RunMarker) -> None:
    """Remove the marker of a run that has no work left."""
    root.delete(_marker_key(marker))


def run_dates(root: Store, name: str) -> Iterator[datetime]:
    """The dates that have a run, ascending; reads no run."""
    prefix = f"{RUNS}{name}/"
    dates = (parse_date_key(info.key.removeprefix(prefix).removesuffix(".json")) for info in root.list(prefix))
    yield from sorted(dates)


def _remember(run: Run) -> EarlierTake:
    return EarlierTake(
        take=run.take,
        origin=run.origin,
        state=run.state,
        reason=run.reason,
        dataset=run.dataset,
        build=run.spec.build_id if run.spec else "",
        job=run.spec.job_id if run.spec else "",
        created=run.created,
        ended=run.ended,
    )


def _create_marker(root: Store, marker: RunMarker) -> None:
    try:
        root.create(_marker_key(marker), b"")
    except AlreadyExists:
        return


def _marker_key(marker: RunMarker) -> str:
    return f"{LIVE_MARKERS}{marker.schedule}/{date_key(marker.date)}.{marker.take}"


def _key(name: str, date: datetime) -> str:
    return f"{RUNS}{name}/{date_key(date)}.json"


def _parse_run(data: bytes | None, name: str, date: datetime) -> Run | None:
    if data is None:
        return None
    field = _key(name, date)
    run = validate(Run, read_json(data, field=field, error=SpecError), field=field, error=SpecError)
    if (run.schedule, run.date) != (name, date):
        raise SpecError(field, f"the run of {name} for {date}", f"that of {run.schedule} for {run.date}")
    return run
