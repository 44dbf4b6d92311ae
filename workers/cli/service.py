"""Commands that run the service: up, worker, health."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from generator.errors import BrokerUnavailable, SettingsError, SpecError
from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from workers.cli.dashboard import Dashboard
    from workers.embedded import StopSignals, WorkerProcess


def _settings_with_options(**given: Any) -> Any:
    """The environment's settings, with the options that were given on the command line in their place."""
    from pydantic import ValidationError

    from generator.spec.canonical import translate_error
    from workers.settings import Settings, load_settings

    settings = load_settings()
    chosen = {name: value for name, value in given.items() if value is not None}
    fixed = {name: getattr(settings, name) for name in settings.model_fields_set}
    try:
        return Settings(**(fixed | chosen))
    except ValidationError as invalid:
        raise translate_error(invalid, field="", error=SettingsError, known=tuple(Settings.model_fields)) from invalid


def _with_absolute_root(settings: Any, root: str) -> Any:
    """``settings`` with ``root`` in the form that means the same in every working directory."""
    from generator.store import absolute_url

    try:
        return settings.model_copy(update={"root": absolute_url(root)})
    except SpecError as wrong:
        raise SettingsError("LATENTMILL_ROOT", wrong.expected, wrong.got, wrong.hint) from wrong


@click.command("worker")
@click.option("--concurrency", type=int, help="Processes, each with its own decoders.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option("--threads", type=int, help="CPU threads of one process.")
@click.option("--tuned", is_flag=True, default=None, help="As many processes and threads as suit this machine.")
@click.option("--root", help="Store root, where bundles and open builds lie.")
def worker_command(
    concurrency: int | None, device: str | None, threads: int | None, tuned: bool | None, root: str | None
) -> None:
    """Run one worker on the Redis in LATENTMILL_REDIS_URL (or the one of `latentmill up`) until it is stopped.

    SIGTERM lets the running shard finish within LATENTMILL_GRACE_SECONDS. What is given here or in the environment
    goes before --tuned.
    """
    from workers.broker.connection import embedded_root, redis_url
    from workers.doctor import blocking_findings
    from workers.embedded import worker_command as command
    from workers.embedded import worker_environment
    from workers.ledger.ledger import Ledger
    from workers.settings import ENV_PREFIX
    from workers.telemetry import check_ports
    from workers.worker.tuning import tuned_settings

    settings = _settings_with_options(concurrency=concurrency, device=device, threads=threads, tuned=tuned, root=root)
    settings = tuned_settings(settings) if settings.tuned else settings
    url, shared = redis_url(settings), embedded_root(settings)
    settings = _with_absolute_root(settings, root or shared or settings.root)
    if shared not in (None, settings.root):
        raise SettingsError("root", f"the root of the running `latentmill up`, {shared}", settings.root)
    check_ports([settings])
    Ledger(url, settings.redis_timeout).ping()
    for found in blocking_findings(settings, settings.root):
        raise SettingsError("root", "a store that mixes up nothing", f"{found.check}: {found.found}", found.mend)
    arguments = command(settings)
    os.execve(arguments[0], arguments, worker_environment(settings) | {f"{ENV_PREFIX}REDIS_URL": url})


@click.command("up")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option("--concurrency", type=int, help="Processes of each worker.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option("--root", help="Store root, where bundles, schedules and open builds lie.")
def up_command(workers: int, concurrency: int | None, device: str | None, root: str | None) -> None:
    """Run Redis, workers and a scheduler on this machine until Ctrl-C. Clients of the same user find them.

    A terminal shows what is running, what is next, and what became of the last day's runs; elsewhere a line is written
    for each change. SIGTERM and a closed terminal end it as Ctrl-C does; a second Ctrl-C ends everything at once.
    Where LATENTMILL_METRICS_PORT is set, the first worker has that port, each further one and the scheduler the next.
    """
    from pydantic import SecretStr

    from workers.cli.dashboard import Dashboard
    from workers.embedded import EmbeddedRedis, StopSignals, running_workers, write_state

    settings = _settings_with_options(concurrency=concurrency, device=device, root=root)
    settings = _with_absolute_root(settings, settings.root)
    if settings.schedules_dir is not None and not settings.schedules_dir.is_dir():
        raise SettingsError("LATENTMILL_SCHEDULES_DIR", "a folder of schedules (YAML files)", settings.schedules_dir)
    logs = [settings.state_dir / f"worker-{number}.log" for number in range(workers)]
    with (
        StopSignals() as signals,
        EmbeddedRedis(settings.state_dir / "redis") as server,
        running_workers(server.url, settings, logs, signals, settings.state_dir / "scheduler.log") as running,
    ):
        state = write_state(settings, server.url)
        try:
            facts = {"root": settings.root, "workers": workers, "logs": settings.state_dir}
            show(facts, as_json=False, title="running")
            click.echo("submit jobs from another terminal; Ctrl-C stops everything")
            with Dashboard(settings.model_copy(update={"redis_url": SecretStr(server.url)})) as watch:
                _wait_until_stopped(running, signals, watch)
        finally:
            state.unlink(missing_ok=True)
    if signals.kill_requested():
        raise click.exceptions.Exit(signals.exit_code)


def _wait_until_stopped(running: list[WorkerProcess], signals: StopSignals, watch: Dashboard) -> None:
    """Until somebody asks to stop. Raises ``BrokerUnavailable`` when a worker or the scheduler ends by itself."""
    while all(worker.is_alive() for worker in running):
        if signals.stop_requested():
            watch.stop()
            with suppress(OSError):  # the terminal may be gone
                click.echo(
                    "stopping: running shards finish or are handed back; Ctrl-C again ends them at once", err=True
                )
            return
        with suppress(OSError):
            watch.show()
        time.sleep(0.1)
    ended = next(worker for worker in running if not worker.is_alive())
    raise BrokerUnavailable("worker", "workers and a scheduler that stay", "one that ended", f"see {ended.log}")


@click.command("health")
@click.option("--max-age", default=60.0, show_default=True, help="Seconds since the last heartbeat.")
@json_option
def health_command(max_age: float, as_json: bool) -> None:
    """Exit code 0 if every worker on this host showed a heartbeat lately, also while Redis is down."""
    from workers.worker.heartbeat import health

    found = health(_settings_with_options().heartbeat_dir)
    healthy = found.workers > 0 and found.oldest <= max_age
    facts = {"heartbeat_age_seconds": round(found.oldest, 1), "workers": found.workers} if found.workers else {}
    show({"healthy": healthy} | facts, as_json=as_json)
    if not healthy:
        raise click.exceptions.Exit(1)
