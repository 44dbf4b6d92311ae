"""Commands that run the service: up, worker, health."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from generator.errors import SettingsError
from workers.cli.output import json_option, show


def _settings(**given: Any) -> Any:
    """The environment's settings, with the options that were given on the command line in their place."""
    from pydantic import ValidationError

    from generator.canonical import translated
    from workers.settings import Settings, load_settings

    settings = load_settings()
    chosen = {name: value for name, value in given.items() if value is not None}
    fixed = {name: getattr(settings, name) for name in settings.model_fields_set}
    try:
        return Settings(**(fixed | chosen))
    except ValidationError as invalid:
        raise translated(invalid, field="", error=SettingsError, known=tuple(Settings.model_fields)) from invalid


@click.command("worker")
@click.option("--concurrency", type=int, help="Processes, each with its own decoders.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option("--threads", type=int, help="CPU threads of one process.")
@click.option("--root", help="Store root, where bundles and open builds lie.")
def worker_command(concurrency: int | None, device: str | None, threads: int | None, root: str | None) -> None:
    """Run one worker on the Redis in LATENTMILL_REDIS_URL (or the one of `latentmill up`) until it is stopped.

    SIGTERM lets the running shard finish within LATENTMILL_GRACE_SECONDS.
    """
    from workers.broker import redis_url
    from workers.embedded import worker_command as command
    from workers.embedded import worker_environment
    from workers.ledger import Ledger
    from workers.settings import PREFIX

    settings = _settings(concurrency=concurrency, device=device, threads=threads, root=root)
    url = redis_url(settings)
    Ledger(url).ping()
    arguments = command(settings)
    os.execve(arguments[0], arguments, worker_environment(settings) | {f"{PREFIX}REDIS_URL": url})


@click.command("up")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option("--concurrency", type=int, help="Processes of each worker.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option("--root", help="Store root, where bundles and open builds lie.")
def up_command(workers: int, concurrency: int | None, device: str | None, root: str | None) -> None:
    """Run Redis and workers on this machine until Ctrl-C. Clients of the same user find them by themselves."""
    from workers.embedded import EmbeddedRedis, WorkerProcess, write_state

    settings = _settings(concurrency=concurrency, device=device, root=root)
    with EmbeddedRedis(settings.state_dir / "redis") as server:
        state = write_state(settings, server.url)
        logs = [settings.state_dir / f"worker-{number}.log" for number in range(workers)]
        running = [WorkerProcess(server.url, settings, log) for log in logs]
        show({"root": settings.root, "workers": workers, "logs": settings.state_dir}, as_json=False, title="running")
        click.echo("submit jobs from another terminal; Ctrl-C stops everything")
        try:
            _stay(running)
        except KeyboardInterrupt:
            click.echo("stopping: running shards finish or are handed back")
        finally:
            state.unlink(missing_ok=True)
            for worker in running:
                worker.stop(settings.grace_seconds + 15.0)


def _stay(running: list[Any]) -> None:
    from generator.errors import BrokerUnavailable

    while all(worker.alive() for worker in running):
        time.sleep(0.5)
    raise BrokerUnavailable("worker", "workers that stay", "one that ended", "see its log in the state directory")


@click.command("health")
@click.option("--max-age", default=60.0, show_default=True, help="Seconds since the last heartbeat.")
@json_option
def health_command(max_age: float, as_json: bool) -> None:
    """Exit code 0 if a worker on this host showed a heartbeat lately, also while Redis is down."""
    settings = _settings()
    try:
        age = time.time() - settings.heartbeat_file.stat().st_mtime
    except OSError as missing:
        raise SettingsError("heartbeat", "a worker that runs on this host", "no heartbeat file") from missing
    show({"healthy": age <= max_age, "heartbeat_age_seconds": round(age, 1)}, as_json=as_json)
    if age > max_age:
        raise click.exceptions.Exit(1)
