"""The command report: shows the cost of a build and the time of its stages."""

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
    help="Price of one worker process per hour: that of a machine divided by its processes.",
)
@json_option
def report_command(build: str, price_per_hour: float | None, as_json: bool) -> None:
    """Show the cost of BUILD: a dataset or one of its builds (a path or URL), or a job of the pool.

    Works for committed and unfinished builds. Shows images, shards, bytes, images per second, seconds by stage, device
    seconds, the slowest shards, the machines, and existing reports. For very many shards, times are of a sample.
    """
    from generator.curation.costs import report_of
    from workers.settings import load_settings

    report = report_of(_open_build(build, load_settings()))
    per_million = report.cost.price_per_million(price_per_hour) if report.cost and price_per_hour is not None else None
    price = {} if per_million is None else {"cost_per_million_images": round(per_million, 4)}
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json") | price, indent=2))
        return
    show(_build_facts(report) | price, as_json=False, title=report.state)
    if report.cost is None:
        click.echo("  no times were recorded for it")
        return
    if report.sampled:
        more = "more than " if report.more_runs else ""
        click.echo(f"  times are of a sample: {report.cost.runs:,} of {more}{report.runs:,} shards made")
    _show_cost(report.cost)


def _open_build(build: str, settings: Settings) -> Store:
    """The store of the build. Raises ``DatasetError``, ``SpecError`` for an unknown job, ``StoreError``."""
    from generator.datasets.builds import find_any_build
    from generator.errors import DatasetError, SettingsError
    from generator.store import open_store

    if "/" in build or Path(build).is_dir():
        return find_any_build(build, settings.s3)
    from workers.client import Client

    try:
        return open_store(Client(settings).status(build).url, settings.s3)
    except SettingsError as error:
        expected = "the path or URL of a dataset or a build, or a job of a running pool"
        got = f"{build[:100]!r}: no such directory, and no pool (LATENTMILL_REDIS_URL)"
        raise DatasetError("build", expected, got) from error


def _build_facts(report: BuildReport) -> dict[str, Any]:
    facts: dict[str, Any] = {"build": report.build}
    facts["images"] = _done_of_total(report.samples_done, report.samples)
    facts["shards"] = _done_of_total(report.shards_done, report.shards)
    if report.refused is not None:
        facts["refused"] = f"{report.refused:,} ({report.refused_share or 0.0:.2%} of the images made)"
    if report.bytes is not None:
        facts["bytes"] = report.bytes
    if report.reports:
        facts["reports"] = [f"{name} ({verdict})" if verdict else name for name, verdict in report.reports.items()]
    if report.images_per_second is not None:
        facts["images_per_second"] = f"{report.images_per_second:,.1f} by the clock, from the first batch to the last"
    return facts


def _done_of_total(done: int, total: int) -> str:
    return f"{total:,}" if done == total else f"{done:,} of {total:,}"


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
        facts["made again"] = f"{cost.made - cost.samples:,} images, because workers were lost or late"
    show(facts, as_json=False, title="what it took")
    click.secho("by stage" + " " * 14 + "seconds    share   processor", bold=True)
    for stage, time in cost.stages.items():
        click.echo(f"  {stage:<10}{time.seconds:>17,.2f}  {time.share:>6.1f}%  {time.processor_seconds:>10,.2f}")
    click.secho("the slowest shards", bold=True)
    for shard in cost.slowest:
        click.echo(f"  {shard.shard:06d}{shard.seconds:>21,.2f} s, most of it {shard.stage}")
