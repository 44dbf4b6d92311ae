"""What a build cost, and where its time went: from what lies beside it, committed or not. Imports no torch.

Everything but the counts of a committed build is a hint (``generator.production.pipeline.run_records``). Reads are
bounded: of a build with many shards the times of some are read.
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

_MAX_RUNS_READ, _MAX_RUNS_LISTED = 2000, 200_000  # runs that are read, of so many
_MAX_REPORTS = 50


class BuildReport(FrozenModel):
    """One build at one moment.

    ``samples_done`` are the images of shards with a receipt. ``refused`` and ``bytes`` are those of the manifest; of an
    unfinished build, what the runs say (``bytes`` grown to ``samples_done`` where some runs were left out). ``runs`` is
    how many there are, at least (``more_runs``: no more were looked for); ``cost`` is the sum of those that were read,
    which were not all if ``sampled``.
    ``images_per_second`` are by the clock on the wall, from the first batch to the last receipt. ``reports``: what lies
    in ``reports/``, and the verdict of each that has one.
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
    """The report of the build whose prefix ``build`` is seen from. Raises ``DatasetError``, ``StoreError``."""
    location, committed = read_build_location(build, "report"), is_committed(build)
    runs = read_run_records(build, most=_MAX_RUNS_READ, listed=_MAX_RUNS_LISTED)
    cost = sum_costs(runs.records)
    shards_done, done, refused, size = (
        _progress_of_manifest(location) if committed else _progress_of_runs(location, cost)
    )
    tried = None if refused is None else refused + (done if committed or cost is None else cost.made)
    return BuildReport(
        build=build.url,
        state="committed" if committed else "unfinished",
        samples=location.recipe.total,
        samples_done=done,
        shards=Plan(location.recipe).shard_count,
        shards_done=shards_done,
        refused=refused,
        refused_share=round(refused / tried, 6) if refused is not None and tried else None,
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
    """Images a second; of shards whose times are kept, where all of these were read."""
    if cost is None or not cost.wall_seconds:
        return None
    return round((done if runs.is_partial else cost.samples) / cost.wall_seconds, 1)


def _report_summaries(build: Store) -> dict[str, str]:
    keys = [info.key for info in islice(build.list("reports/"), _MAX_REPORTS)]
    return {key.removeprefix("reports/").removesuffix(".json"): _report_verdict(build, key) for key in keys}


def _report_verdict(build: Store, key: str) -> str:
    """In words; empty for a report that has none. Anybody may have written it: what cannot be read says so."""
    try:
        if key == VERDICT_KEY and (verdict := read_verdict(build)) is not None:
            return "holds" if verdict.holds else f"does not hold: {printable('; '.join(verdict.reasons)[:1000])}"
        if key == APPROVAL_KEY and (approval := read_approval(build)) is not None:
            return f"approved by {printable(approval.by)}"
    except (DatasetError, IntegrityError) as wrong:
        return f"cannot be read: {printable(str(wrong)[:200])}"
    return ""
