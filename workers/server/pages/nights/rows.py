"""A run as the page of its schedule shows it: why it was refused, what an operator may do about it, its addresses."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from generator.curation.gates import Verdict
from generator.datasets.promotion import DatasetState, read_state
from generator.errors import LatentmillError
from generator.store import open_store
from generator.store.base import Store
from workers.schedules.cron import date_key
from workers.schedules.runs import EarlierTake, Run
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.pages.nights.times import LocalTimes
from workers.server.pages.promotion import refusals
from workers.server.readers import Readers, find_readers
from workers.server.schedules import view_run

_READERS = 16


class TakeRow(NamedTuple):
    """What came of an earlier run of the same date. ``ended``: in the zone of the schedule; ``build``: its build, if it
    is not the one that the row shows; ``href``: the page of that build; ``job``: empty where none was known."""

    state: str
    ended: str
    reason: str
    build: str
    href: str
    job: str


@dataclass(frozen=True)
class RunRow:
    """One run. ``facts``: as ``latentmill schedule history`` shows it; ``local``: its date in the zone of the schedule;
    ``build``: the id of its build if it has one at a place of the tenant; ``state``, ``readers``: of its dataset,
    ``None`` if they cannot be read; ``refusals``: a sentence for each gate that refused it; ``earlier``: what came of
    earlier runs of its date, the newest first."""

    run: Run
    facts: dict[str, Any]
    local: str
    dataset: str
    build: str
    verdict: Verdict | None
    state: DatasetState | None
    readers: Readers | None
    earlier: list[TakeRow]

    @property
    def key(self) -> str:
        return date_key(self.run.date)

    @property
    def date(self) -> str:
        """The date for a form."""
        return self.run.date.isoformat()

    @property
    def job(self) -> str:
        return self.run.spec.job_id if self.run.spec else ""

    @property
    def url(self) -> str:
        """The page of the build."""
        return f"/datasets/{quote(self.dataset)}/builds/{self.build}" if self.build else ""

    @property
    def refusals(self) -> list[str]:
        return refusals(self.verdict) if self.run.state == "refused" else []

    @property
    def is_current(self) -> bool:
        """Whether readers get its build."""
        return bool(self.build) and self.readers is not None and self.readers.build == self.build

    @property
    def is_older(self) -> bool:
        """Whether readers get a build of a later date, so that its promotion would be refused."""
        current = self.state.current if self.state and self.build else None
        date = current.logical_date if current else None
        return date is not None and self.run.date < date and not self.is_current

    @property
    def may_run(self) -> bool:
        return self.run.has_ended and self.run.state != "promoted"

    @property
    def may_promote(self) -> bool:
        is_promoted = self.readers is not None and self.readers.got_by_promotion(self.build)
        return self._may_decide and not is_promoted and not self.is_older

    @property
    def withdrawn(self) -> bool:
        return self.state is not None and self.build in self.state.withdrawn

    @property
    def pin(self) -> str | None:
        """The reason for which its build is pinned, which may be empty; ``None`` without a pin."""
        pins = self.state.pins if self.state else ()
        return next((pin.note for pin in pins if pin.build == self.build), None)

    @property
    def may_pin(self) -> bool:
        return self._may_decide and self.pin is None

    @property
    def comparison(self) -> str:
        """The page that compares the build that readers get with this one, if they differ."""
        if not self.build or self.is_current or self.readers is None or not self.readers.build:
            return ""
        return f"/datasets/{quote(self.dataset)}/compare?first={self.readers.build}&second={self.build}"

    @property
    def _may_decide(self) -> bool:
        is_deleted = self.state is not None and self.build in self.state.being_deleted
        return bool(self.build) and self.run.has_ended and self.state is not None and not is_deleted


def make_rows(context: ServerContext, caller: Caller, times: LocalTimes, runs: Sequence[Run]) -> list[RunRow]:
    """The rows of runs, in their order, with their verdicts and the states of their datasets."""
    named = [_place_of(context, caller, run.dataset) for run in runs]
    judged = [run for run, dataset in zip(runs, named, strict=True) if dataset and run.committed is not None]
    stores: list[tuple[Store, str]] = [(_build_of(context, run), f"{run.take} {run.ended}") for run in judged]
    verdicts = dict(zip((run.date for run in judged), context.verdicts.find(stores), strict=True))
    states = _states(context, list(dict.fromkeys(run.dataset for run in judged)))
    return [
        RunRow(
            run=run,
            facts=view_run(context, caller, run),
            local=times.text(run.date),
            dataset=dataset,
            build=run.spec.build_id if run.spec and run.date in verdicts else "",
            verdict=verdicts.get(run.date),
            state=states[run.dataset].state if run.dataset in states else None,
            readers=states[run.dataset].readers if run.dataset in states else None,
            earlier=[_take_row(context, caller, times, run, take) for take in reversed(run.earlier)],
        )
        for run, dataset in zip(runs, named, strict=True)
    ]


def _take_row(context: ServerContext, caller: Caller, times: LocalTimes, run: Run, take: EarlierTake) -> TakeRow:
    is_same = run.spec is not None and (take.dataset, take.build) == (run.dataset, run.spec.build_id)
    build, place = "" if is_same else take.build, _place_of(context, caller, take.dataset)
    return TakeRow(
        state=take.state,
        ended=times.text(take.ended) if take.ended else "",
        reason=context.redact(take.reason, caller.tenant),
        build=build,
        href=f"/datasets/{quote(place)}/builds/{build}" if build and place else "",
        job=take.job,
    )


def _place_of(context: ServerContext, caller: Caller, dataset: str) -> str:
    """How the tenant names the dataset at a URL; empty where it lies at none of its places."""
    return (context.places.name_of(caller.tenant, dataset) or "") if dataset else ""


def _build_of(context: ServerContext, run: Run) -> Store:
    return open_store(run.url, context.settings.s3)


class _Dataset(NamedTuple):
    state: DatasetState | None
    readers: Readers | None


def _states(context: ServerContext, datasets: Sequence[str]) -> dict[str, _Dataset]:
    """Which build readers of datasets get; a schedule may write into one of its own for every date."""
    if not datasets:
        return {}
    with ThreadPoolExecutor(min(_READERS, len(datasets))) as pool:
        return dict(zip(datasets, pool.map(lambda dataset: _state(context, dataset), datasets), strict=True))


def _state(context: ServerContext, dataset: str) -> _Dataset:
    """``None`` for what cannot be read."""
    try:
        store = open_store(dataset, context.settings.s3)
        state = read_state(store) or DatasetState(by_promotion=False)
        return _Dataset(state, find_readers(store, state))
    except LatentmillError:
        return _Dataset(None, None)
