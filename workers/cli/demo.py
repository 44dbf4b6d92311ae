"""The command demo: everything on one machine, from real digits to a committed and verified dataset."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from generator.errors import IntegrityError, JobFailed
from workers.cli.output import json_option, show
from workers.cli.progress import progress_bar

if TYPE_CHECKING:
    from generator.models.autoencoders.training import Progress
    from workers.embedded import StopSignals, WorkerProcess
    from workers.jobs.status import JobStatus
    from workers.settings import Settings


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("latentmill-demo"),
    show_default=True,
    help="Directory for everything that the demo writes.",
)
@click.option("--count", default=10_000, show_default=True, type=click.IntRange(10, 10_000_000), help="Images to make.")
@json_option
def demo_command(out: Path, count: int, as_json: bool) -> None:
    """Train on the bundled digits, start an embedded Redis and a worker, and build a dataset of labelled images.

    A second run finds the committed build and only verifies it.
    """
    from generator.drafts import parse_draft, resolve_draft
    from generator.production.commit import find_manifest, locate_build

    bundle = out / "digits.bundle"
    if not bundle.exists():
        _train(bundle, quiet=as_json)
    fields = _job_fields(bundle, out, count)
    location = locate_build(resolve_draft(parse_draft(fields))[0])
    found = find_manifest(location) is not None
    pace = {} if found else _build(fields, _settings(out), quiet=as_json)
    picture = _draw_comparison(out, bundle)
    dataset = location.url.removeprefix("file://")
    facts = {
        "dataset": dataset,
        **_verify(location.url),
        **pace,
        "preview": f"{dataset}/preview.jpg",
        **({"page": f"{dataset}/index.html"} if location.recipe.page else {}),
        "real_beside_generated": picture,
    }
    title = "found and verified the committed build of an earlier run; built nothing"
    facts |= {"found": found} if as_json else {}
    show(facts, as_json=as_json, title=title if found else "committed and verified")


def _settings(out: Path) -> Settings:
    """Settings of a separate service inside ``out``: it shares no Redis, root or cache with another one."""
    from workers.settings import Settings

    home = out.absolute()
    return Settings(root=str(home / "root"), state_dir=home / "state", cache_dir=home / "cache", reconcile_seconds=1.0)


def _job_fields(bundle: Path, out: Path, count: int) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "count": count,
        "seed": 7,
        "density_floor": 0.02,
        "destination": str(out / "datasets"),
        "name": "digits",
    }


def _train(bundle: Path, *, quiet: bool) -> None:
    from generator.models.learning import TrainingCallbacks, recommended_model, recommended_settings, train_bundle
    from generator.models.screening.config import default_judge
    from generator.sources import load_source

    source = load_source("digits")
    settings = recommended_settings(source)
    steps = settings.epochs * (int(len(source) * (1 - settings.holdout)) // settings.batch)
    config = recommended_model(source)
    judge = default_judge(source.size)
    with progress_bar("training on digits", steps, quiet=quiet, unit="steps") as bar:

        def follow(at: Progress) -> None:
            bar((at.epoch - 1) * at.steps + at.step)

        callbacks = TrainingCallbacks(on_step=follow)
        train_bundle(source, config, settings, bundle, judge=judge, callbacks=callbacks, keep_thumbnails=True)
        bar(steps)


def _build(fields: dict[str, Any], settings: Settings, *, quiet: bool) -> dict[str, Any]:
    from pydantic import SecretStr

    from workers.client import Client
    from workers.embedded import EmbeddedRedis, StopSignals, running_workers

    logs = [settings.state_dir / "worker.log"]
    with StopSignals() as signals, EmbeddedRedis(settings.state_dir / "redis") as server:
        client = Client(settings.model_copy(update={"redis_url": SecretStr(server.url)}))
        status, start = client.submit(fields), time.perf_counter()
        with running_workers(server.url, settings, logs, signals) as (worker,):
            with progress_bar("worker starts, then makes images", status.samples, quiet=quiet) as bar:
                first = _follow(client.watch(status.job), worker, signals, bar)
            seconds = time.perf_counter() - start
    if signals.stop_requested():
        raise click.exceptions.Exit(signals.exit_code)
    pace = {"seconds_with_start_of_worker": round(seconds, 1)}
    elapsed = seconds - (first - start)
    return pace | {"images_per_second": round(status.samples / elapsed)} if elapsed > 0 else pace


def _follow(statuses: Iterable[JobStatus], worker: WorkerProcess, signals: StopSignals, bar: Any) -> float:
    """Show progress until the job ends or a stop is requested; returns when the first shard was claimed (seconds)."""
    first = time.perf_counter()
    for status in statuses:
        if signals.stop_requested():
            with suppress(OSError):  # the terminal may be gone
                click.echo("stopping: run the same command again to continue", err=True)
            break
        if status.shards_running == status.shards_done == 0:
            first = time.perf_counter()
        bar(status.samples_done)
        if status.state in ("failed", "cancelled"):
            raise JobFailed("job", "a committed dataset", f"{status.state}: {status.error}")
        if not worker.is_alive() and not status.ended:
            raise JobFailed("worker", "a worker that keeps running", "it ended", f"see {worker.log}")
    return first


def _verify(url: str) -> dict[str, Any]:
    from generator.datasets.verification import verify_dataset

    checked = verify_dataset(url)
    if checked.problems:
        raise IntegrityError(checked.problems[0].where, "an intact dataset", checked.problems[0].what)
    return {"images": checked.samples, "shards": checked.shards, "bytes": checked.bytes}


def _draw_comparison(out: Path, bundle: Path) -> Path:
    """Draw real digits beside generated ones, one row per class; returns the file."""
    from generator.curation.quality.sample_sheets import draw_real_and_generated
    from generator.models.bundle import load_bundle
    from generator.sources import load_source
    from generator.store import open_store

    path = out / "real-beside-generated.png"
    if not path.exists():
        draw_real_and_generated(load_source("digits"), load_bundle(open_store(str(bundle))), path)
    return path
