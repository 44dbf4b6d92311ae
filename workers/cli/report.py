"""The command that says what a build cost: report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from generator.curation.costs import BuildReport
    from generator.production.pipeline.run_costs import RunCosts
    from generator.store.base import Store
    from workers.settings import Settings


@click.command("report")
@click.argument("build")
@click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0.0),
    help="What one worker process costs: the price of a machine, divided by its processes.",
)
@json_option
def report_command(build: str, price_per_hour: float | None, as_json: bool) -> None:
    """What BUILD cost, and where its time went: a dataset, a build of it (both a path or URL), or a job of the pool.

    Of committed builds and unfinished ones: images, shards, bytes, images per second, seconds by stage, seconds of the
    device, the slowest shards, the machines, and what reports there are. Of very many shards some are looked at.
    """
    from generator.curation.costs import report_of
    from workers.settings import load_settings

    found = report_of(_open_build(build, load_settings()))
    per_million = found.cost.price_per_million(price_per_hour) if found.cost and price_per_hour is not None else None
    price = {} if per_million is None else {"cost_per_million_images": round(per_million, 4)}
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json") | price, indent=2))
        return
    show(_build_facts(found) | price, as_json=False, title=found.state)
    if found.cost is None:
        click.echo("  no times are kept of it")
        return
    if found.sampled:
        more = "more than " if found.more_runs else ""
        click.echo(f"  times are of a sample: {found.cost.runs:,} shards of {more}{found.runs:,} that were made")
    _show_cost(found.cost)


def _open_build(build: str, settings: Settings) -> Store:
    """The build that is meant. Raises ``DatasetError``, ``SpecError`` for a job that nobody knows, ``StoreError``."""
    from generator.datasets.builds import find_any_build
    from generator.errors import DatasetError, SettingsError
    from generator.store import open_store

    if "/" in build or Path(build).is_dir():
        return find_any_build(build, settings.s3)
    from workers.client import Client

    try:
        return open_store(Client(settings).status(build).url, settings.s3)
    except SettingsError as nowhere:
        expected = "the path or URL of a dataset or a build, or a job of a pool that is there"
        got = f"{build[:100]!r}: no such directory, and no pool (LATENTMILL_REDIS_URL)"
        raise DatasetError("build", expected, got) from nowhere


def _build_facts(found: BuildReport) -> dict[str, Any]:
    facts: dict[str, Any] = {"build": found.build}
    facts["images"] = _done_of_total(found.samples_done, found.samples)
    facts["shards"] = _done_of_total(found.shards_done, found.shards)
    if found.refused is not None:
        facts["refused"] = f"{found.refused:,} ({found.refused_share or 0.0:.2%} of what was made)"
    if found.bytes is not None:
        facts["bytes"] = found.bytes
    if found.reports:
        facts["reports"] = [f"{name} ({verdict})" if verdict else name for name, verdict in found.reports.items()]
    if found.images_per_second is not None:
        facts["images_per_second"] = f"{found.images_per_second:,.1f} by the clock, from the first batch to the last"
    return facts


def _done_of_total(done: int, whole: int) -> str:
    return f"{whole:,}" if done == whole else f"{done:,} of {whole:,}"


def _show_cost(cost: RunCosts) -> None:
    facts: dict[str, Any] = {}
    if cost.wall_seconds is not None:
        facts["time"] = f"{cost.wall_seconds:,.1f} s, from {cost.began:%Y-%m-%d %H:%M:%S} UTC"
    took_part = f" ({cost.processes:,} took part)" if cost.processes else ""
    facts["a_worker_process"] = f"{cost.images_per_second:,.1f} images/s"
    facts["processes"] = f"{cost.process_seconds:,.1f} s of work{took_part}"
    facts["device"] = f"{cost.device_seconds_per_image * 1e6:,.1f} us of decoding for each accepted image"
    if cost.peak_device_bytes:
        facts["device memory"] = f"{cost.peak_device_bytes:,} bytes at the peak of a batch"
    if cost.devices:
        facts["made on"] = cost.devices
    if cost.made > cost.samples:
        facts["made again"] = f"{cost.made - cost.samples:,} images, of workers that were lost or late"
    show(facts, as_json=False, title="what it took")
    click.secho("by stage" + " " * 14 + "seconds    share   processor", bold=True)
    for stage, spent in cost.stages.items():
        click.echo(f"  {stage:<10}{spent.seconds:>17,.2f}  {spent.share:>6.1f}%  {spent.processor_seconds:>10,.2f}")
    click.secho("the slowest shards", bold=True)
    for slow in cost.slowest:
        click.echo(f"  {slow.shard:06d}{slow.seconds:>21,.2f} s, most of it {slow.stage}")
