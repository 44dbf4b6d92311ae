"""Report what a build cost and where its time went, from its run records; committed or not. Imports no torch.

Everything except the counts of a committed build is a hint (``generator.production.pipeline.run_records``). Reads are
bounded: for a build with many shards, only some of the run records are read.
"""

from __future__ import annotations

from itertools import islice
from typing import Literal, NamedTuple

from generator.curation.gates.verdict import VERDICT_KEY, read_verdict
from generator.datasets.builds import is_committed, read_manifest
from generator.datasets.promotion.promote import APPROVAL_KEY, read_approval
from generator.errors import DatasetError, IntegrityError
from generator.production.commit import BuildLocation, finished_shards, read_build_location
from generator.production.pipeline.run_costs import RunCosts, printable, sum_costs
from generator.production.pipeline.run_records import RunRecords, read_run_records
from generator.spec.canonical import FrozenModel
from generator.spec.plan import Plan
from generator.store.base import Store

_MAX_RUNS_READ, _MAX_RUNS_LISTED = 2000, 200_000  # run records that are read; run records that are listed
_MAX_REPORTS = 50


class BuildReport(FrozenModel):
    """The progress and cost of one build at one moment.

    ``samples_done``: images in shards with a receipt. ``refused``, ``bytes``: from the manifest or, for an unfinished
    build, from the run records (``bytes`` is extrapolated to ``samples_done``). ``runs``: the number of run records
    found; with ``more_runs`` a lower bound, because listing stopped at a limit. ``cost``: the sum of the records that
    were read; with ``sampled`` these were not all records. ``images_per_second``: by wall-clock time, from the first
    batch to the last receipt. ``reports``: the names of the objects in ``reports/``, each with its verdict, if any.
    """

    build: str
    state: Literal["committed", "unfinished"]
    samples: int
    samples_done: int
    shards: int
    shards_done: int
    refused: int | None
    refused_share: float | None
    bytes: int | None
    runs: int
    more_runs: bool
    sampled: bool
    images_per_second: float | None
    cost: RunCosts | None
    reports: dict[str, str]


class _Progress(NamedTuple):
    shards: int
    samples: int
    refused: int | None
    bytes: int | None


def report_of(build: Store) -> BuildReport:
    """The cost report of the build. ``build`` is rooted at its prefix. Raises ``DatasetError``, ``StoreError``."""
    location, committed = read_build_location(build, "report"), is_committed(build)
    runs = read_run_records(build, most=_MAX_RUNS_READ, listed=_MAX_RUNS_LISTED)
    cost = sum_costs(runs.records)
    shards_done, done, refused, size = (
        _progress_of_manifest(location) if committed else _progress_of_runs(location, cost)
    )
    attempted = None if refused is None else refused + (done if committed or cost is None else cost.made)
    return BuildReport(
        build=build.url,
        state="committed" if committed else "unfinished",
        samples=location.recipe.total,
        samples_done=done,
        shards=Plan(location.recipe).shard_count,
        shards_done=shards_done,
        refused=refused,
        refused_share=round(refused / attempted, 6) if refused is not None and attempted else None,
        bytes=size,
        runs=runs.found,
        more_runs=runs.truncated,
        sampled=runs.is_partial,
        images_per_second=_images_per_second(runs, cost, done),
        cost=cost,
        reports=_report_summaries(build),
    )


def _progress_of_manifest(location: BuildLocation) -> _Progress:
    manifest = read_manifest(location.store)
    return _Progress(len(manifest.shards), manifest.samples, manifest.refused, manifest.bytes)


def _progress_of_runs(location: BuildLocation, cost: RunCosts | None) -> _Progress:
    plan = Plan(location.recipe)
    numbers = [number for number in finished_shards(location) if number < plan.shard_count]
    done = sum(plan.size(number) for number in numbers)
    if cost is None:
        return _Progress(len(numbers), done, None, None)
    return _Progress(len(numbers), done, cost.refused, round(cost.bytes / cost.samples * done))


def _images_per_second(runs: RunRecords, cost: RunCosts | None, done: int) -> float | None:
    """Images per wall-clock second. If all records were read, only images of shards with a record count."""
    if cost is None or not cost.wall_seconds:
        return None
    return round((done if runs.is_partial else cost.samples) / cost.wall_seconds, 1)


def _report_summaries(build: Store) -> dict[str, str]:
    keys = sorted(info.key for info in islice(build.list("reports/"), _MAX_REPORTS))
    return {key.removeprefix("reports/").removesuffix(".json"): _report_verdict(build, key) for key in keys}


def _report_verdict(build: Store, key: str) -> str:
    """The verdict in words; empty if the report has none. Reports are untrusted: an unreadable one is reported."""
    try:
        if key == VERDICT_KEY and (verdict := read_verdict(build)) is not None:
            return "holds" if verdict.holds else f"does not hold: {printable('; '.join(verdict.reasons)[:1000])}"
        if key == APPROVAL_KEY and (approval := read_approval(build)) is not None:
            return f"approved by {printable(approval.by)}"
    except (DatasetError, IntegrityError) as wrong:
        return f"cannot be read: {printable(str(wrong)[:200])}"
    return ""
