"""The builds of a dataset as its page lists them: when they were committed, for which date, and their state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from generator.datasets.builds import build_store, check_dataset, list_builds
from generator.datasets.promotion import DatasetState, read_approval, read_state
from generator.errors import LatentmillError
from generator.production.provenance.manifest import MANIFEST_KEY
from generator.store.base import Store
from workers.server.context import ServerContext
from workers.server.pages.promotion import refusals, verdict_of
from workers.server.readers import Readers, find_readers

MAX_BUILDS = 500  # that are sorted by when they were committed
PAGE = 50  # builds of one page: manifests and reports are read of those alone

Choice = Literal["", "promote", "rollback"]


@dataclass(frozen=True)
class BuildRows:
    """A page of the list of builds. ``start``, ``total``: where it begins in the list, and how long that is;
    ``left_out``: builds that are not in the list; ``undo``: the build that readers get again if the last rollback is
    undone, empty without one; ``readers``: what readers of the dataset get."""

    rows: list[BuildRow]
    start: int
    total: int
    left_out: int
    undo: str
    readers: Readers

    @property
    def newer(self) -> int | None:
        """Where the page before begins, if there is one."""
        return max(0, self.start - PAGE) if self.start else None

    @property
    def older(self) -> int | None:
        """Where the next page begins, if there is one."""
        return self.start + PAGE if self.start + PAGE < self.total else None


@dataclass(frozen=True)
class BuildRow:
    """A build in a list. ``published``: when it was committed, ``None`` if it is not; ``logical_date``: in UTC;
    ``samples``: ``None`` if its manifest cannot be read; ``note``: why it is pinned; ``may_pin``: it can be pinned;
    ``refusals``: sentences about the gates that refused it; ``choice``: what an operator may do.
    """

    id: str
    href: str
    published: datetime | None
    logical_date: datetime | None
    samples: int | None
    current: bool
    pinned: bool
    note: str
    withdrawn: bool
    may_pin: bool
    refusals: list[str]
    choice: Choice

    @property
    def date(self) -> str:
        """The logical date for a form."""
        return self.logical_date.isoformat() if self.logical_date else ""


def list_rows(context: ServerContext, tenant: str, dataset: str, start: int = 0) -> BuildRows:
    """Builds of a dataset from place ``start`` of its list: the newest first, those that are not committed last.

    Raises ``SpecError``, ``AccessRefused``, ``DatasetError``, ``StoreError``.
    """
    store = context.dataset(tenant, dataset)
    check_dataset(store)
    state, found = read_state(store) or DatasetState(by_promotion=False), list_builds(store)
    known = {state.build, *state.pinned, *(each.build for each in state.previous)}
    builds = sorted(found, key=lambda build: build not in known)[:MAX_BUILDS]
    infos = [(build, build_store(store, build).head(MANIFEST_KEY)) for build in builds]
    committed = sorted(((info.modified, build) for build, info in infos if info is not None), reverse=True)
    moments: list[tuple[datetime | None, str]] = [*committed, *((None, build) for build, info in infos if info is None)]
    left_out = len(found) - len(moments)
    readers = find_readers(store, state, None if left_out else [build for _, build in committed])
    start = min(start, max(0, len(moments) - 1))
    rows = [
        _row(context, store, dataset, build, state, readers, moment) if moment else _unfinished(dataset, build, state)
        for moment, build in moments[start : start + PAGE]
    ]
    undo = state.undone[0][0].build if state.undone and state.undone[0] else ""
    return BuildRows(rows, start, len(moments), left_out, undo, readers)


def _row(
    context: ServerContext,
    store: Store,
    dataset: str,
    build: str,
    state: DatasetState,
    readers: Readers,
    published: datetime,
) -> BuildRow:
    verdict = verdict_of(build_store(store, build))
    promotions = {each.build: each.logical_date for each in (*reversed(state.previous), state.current) if each}
    date = promotions.get(build) or _approved_date(store, build)
    date = date or (verdict.logical_date if verdict else None)
    return BuildRow(
        id=build,
        href=f"/datasets/{quote(dataset)}/builds/{quote(build)}",
        published=published,
        logical_date=date.astimezone(UTC) if date else None,
        samples=_samples(context, store, build),
        current=build == readers.build,
        pinned=build in state.pinned,
        note=next((pin.note for pin in state.pins if pin.build == build), ""),
        may_pin=published is not None and build not in state.pinned and build not in state.being_deleted,
        withdrawn=build in state.withdrawn,
        refusals=refusals(verdict),
        choice=_choice(state, build, date),
    )


def _unfinished(dataset: str, build: str, state: DatasetState) -> BuildRow:
    return BuildRow(
        id=build,
        href=f"/datasets/{quote(dataset)}/builds/{quote(build)}",
        published=None,
        logical_date=None,
        samples=None,
        current=build == state.build,
        pinned=build in state.pinned,
        note="",
        may_pin=False,
        withdrawn=build in state.withdrawn,
        refusals=[],
        choice="",
    )


def _choice(state: DatasetState, build: str, date: datetime | None) -> Choice:
    """Going back is for builds that were promoted before, or are of an earlier date: ``promote`` refuses those."""
    if build == state.build or build in state.being_deleted:
        return ""
    current = state.current.logical_date if state.current else None
    is_older = current is not None and date is not None and date < current
    return "rollback" if is_older or build in {each.build for each in state.previous} else "promote"


def _approved_date(store: Store, build: str) -> datetime | None:
    try:
        approval = read_approval(build_store(store, build))
    except LatentmillError:  # it may be deleted meanwhile
        return None
    return approval.logical_date if approval else None


def _samples(context: ServerContext, store: Store, build: str) -> int | None:
    try:
        return context.shelf.find(store, build).manifest.samples
    except LatentmillError:
        return None
