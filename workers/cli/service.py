"""Commands that run and check the service: up, worker, health."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from generator.errors import SettingsError, SpecError, WorkerUnavailable
from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from workers.cli.dashboard import Dashboard
    from workers.embedded import EmbeddedRedis, StopSignals, WorkerProcess


def settings_with_options(**given: Any) -> Any:
    """The settings of the environment, overridden by options of the command line."""
    from pydantic import ValidationError

    from generator.spec.canonical import translate_error
    from workers.settings import Settings, load_settings

    settings = load_settings()
    options = {name: value for name, value in given.items() if value is not None}
    from_environment = {name: getattr(settings, name) for name in settings.model_fields_set}
    try:
        return Settings(**(from_environment | options))
    except ValidationError as invalid:
        raise translate_error(invalid, field="", error=SettingsError, known=tuple(Settings.model_fields)) from invalid


def _with_absolute_root(settings: Any, root: str) -> Any:
    """``settings`` with ``root`` as an absolute URL."""
    from generator.store import absolute_url

    try:
        return settings.model_copy(update={"root": absolute_url(root)})
    except SpecError as wrong:
        raise SettingsError("LATENTMILL_ROOT", wrong.expected, wrong.got, wrong.hint) from wrong


@click.command("worker")
@click.option("--concurrency", type=int, help="Worker processes, each with its own decoders.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option("--threads", type=int, help="CPU threads per process.")
@click.option(
    "--tuned", is_flag=True, default=None, help="Choose the numbers of processes and threads for this machine."
)
@click.option("--root", help="Store root, with bundles and open builds.")
def worker_command(
    concurrency: int | None, device: str | None, threads: int | None, tuned: bool | None, root: str | None
) -> None:
    """Run one worker on the Redis in LATENTMILL_REDIS_URL (or the one of `latentmill up`) until it is stopped.

    After SIGTERM, running shards may finish within LATENTMILL_GRACE_SECONDS. Options and environment variables take
    precedence over --tuned.
    """
    from workers.broker.connection import embedded_root, ping, redis_address
    from workers.doctor import blocking_findings
    from workers.embedded import worker_command as command
    from workers.embedded import worker_environment
    from workers.settings import ENV_PREFIX
    from workers.telemetry import check_ports
    from workers.worker.tuning import tuned_settings

    settings = settings_with_options(concurrency=concurrency, device=device, threads=threads, tuned=tuned, root=root)
    settings = tuned_settings(settings) if settings.tuned else settings
    address, embedded = redis_address(settings), embedded_root(settings)
    settings = _with_absolute_root(settings, root or embedded or settings.root)
    if embedded not in (None, settings.root):
        raise SettingsError("root", f"the root of the running `latentmill up`, {embedded}", settings.root)
    check_ports([settings])
    ping(address, settings.redis_timeout)
    for found in blocking_findings(settings, settings.root):
        raise SettingsError(
            "root", "a store that cannot lose or mix up data", f"{found.check}: {found.found}", found.mend
        )
    arguments = command(settings)
    os.execve(arguments[0], arguments, worker_environment(settings) | {f"{ENV_PREFIX}REDIS_URL": address.url})


@click.command("up")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Number of workers.")
@click.option("--concurrency", type=int, help="Processes per worker.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option("--root", help="Store root, with bundles, schedules and open builds.")
@click.option("--serve/--no-serve", "with_server", default=True, show_default=True, help="Run the HTTP server too.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server.  [default: 8400, or a free one]")
def up_command(
    workers: int, concurrency: int | None, device: str | None, root: str | None, with_server: bool, port: int | None
) -> None:
    """Run Redis, workers, a scheduler and an HTTP server on this machine until Ctrl-C. Commands of the same user find
    them.

    A terminal shows running jobs, the next dates, and the runs of the last day; elsewhere, each change is one line.
    SIGTERM or closing the terminal stops it like Ctrl-C; a second Ctrl-C kills everything immediately. With
    LATENTMILL_METRICS_PORT, the first worker uses that port, and each further worker and the scheduler the next one.
    The link that is shown opens the pages, once; the key behind it ends with this command. They show the folders
    `datasets` in this directory and in those below it, and wherever the jobs write that are submitted to it; with
    LATENTMILL_DESTINATIONS, or places in the file of tenants, those alone.
    """
    from pydantic import SecretStr

    from workers.cli.dashboard import Dashboard
    from workers.cli.server_of_up import first_key, local_datasets, with_server_settings
    from workers.embedded import EmbeddedRedis, StopSignals, running_workers, write_state

    settings = settings_with_options(concurrency=concurrency, device=device, root=root, server_port=port)
    settings = _with_absolute_root(settings, settings.root)
    if settings.schedules_dir is not None and not settings.schedules_dir.is_dir():
        raise SettingsError("LATENTMILL_SCHEDULES_DIR", "a folder of schedules (YAML files)", settings.schedules_dir)
    settings = with_server_settings(settings) if with_server else settings
    logs = [settings.state_dir / f"worker-{number}.log" for number in range(workers)]
    scheduler_log, server_log = settings.state_dir / "scheduler.log", settings.state_dir / "server.log"
    with (
        StopSignals() as signals,
        EmbeddedRedis(settings.state_dir / "redis") as server,
        running_workers(
            server.url, settings, logs, signals, scheduler_log, server_log if with_server else None
        ) as running,
        first_key(settings, with_server=with_server) as link,
        local_datasets(settings) as shown,
    ):
        state = write_state(settings, server.url)
        try:
            facts = {"root": settings.root, "workers": workers, "logs": settings.state_dir} | link | shown
            show(facts, as_json=False, title="running")
            click.echo("submit jobs from another terminal; Ctrl-C stops everything")
            with Dashboard(settings.model_copy(update={"redis_url": SecretStr(server.url)})) as dashboard:
                _wait_until_stopped(server, running, signals, dashboard)
        finally:
            state.unlink(missing_ok=True)
    if signals.kill_requested():
        raise click.exceptions.Exit(signals.exit_code)


def _wait_until_stopped(
    server: EmbeddedRedis, running: list[WorkerProcess], signals: StopSignals, dashboard: Dashboard
) -> None:
    """Return when a stop is requested. A Redis that ended is started again, with its data.

    Raises ``WorkerUnavailable`` with the reason if another process ends by itself, ``BrokerUnavailable`` if Redis does
    so again and again.
    """
    while all(worker.is_alive() for worker in running):
        if not server.is_alive() and not signals.stop_requested():
            ending = server.restart()
            with suppress(OSError):
                click.echo(f"redis-server ended ({ending}): starting it again with its data", err=True)
        if signals.stop_requested():
            dashboard.stop()
            with suppress(OSError):  # the terminal may be gone
                click.echo("stopping: running shards finish or are released; Ctrl-C again kills them", err=True)
            return
        with suppress(OSError):
            dashboard.show()
        time.sleep(0.1)
    ended = next(worker for worker in running if not worker.is_alive())
    raise WorkerUnavailable(
        ended.log.stem, "a process that keeps running", f"one that ended: {ended.last_words()}", f"see {ended.log}"
    )


@click.command("health")
@click.option("--max-age", default=60.0, show_default=True, help="Maximum age of a heartbeat in seconds.")
@json_option
def health_command(max_age: float, as_json: bool) -> None:
    """Check the heartbeats of the workers on this host. Does not need Redis.

    Exit code 0 if there is a worker and every heartbeat is recent, 1 otherwise.
    """
    from workers.worker.heartbeat import health

    found = health(settings_with_options().heartbeat_dir)
    healthy = found.workers > 0 and found.oldest <= max_age
    facts = {"heartbeat_age_seconds": round(found.oldest, 1), "workers": found.workers} if found.workers else {}
    show({"healthy": healthy} | facts, as_json=as_json)
    if not healthy:
        raise click.exceptions.Exit(1)
