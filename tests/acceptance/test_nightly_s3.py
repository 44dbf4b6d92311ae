"""Schedules whose store root and datasets lie in S3, over HTTP: two schedulers, one worker, a Redis that forgets.

Each process has the rights that docs/security.md gives to its role, and no others.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from generator import open_dataset
from generator.datasets.promotion import read_latest, rollback
from generator.errors import AccessDenied
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.cli_sandbox import cli_sandbox, minutes_ago, write_schedule
from tests.support.s3_permissions import restricted_s3
from tests.support.servers import RedisServer, S3Server
from workers.schedules.history import newest_runs
from workers.schedules.runs import Run, live_markers
from workers.settings import ENV_PREFIX

ROLES = ("reader", "client", "worker", "scheduler")
HOOK = {"webhooks": [{"url": "http://127.0.0.1:9/hook", "secret": "ops"}]}  # nothing listens there: the message stays


@pytest.mark.timeout(300)
def test_a_scheduler_dies_and_redis_forgets(
    redis_server: RedisServer, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    """Each date is built once and promoted once, and readers get the newest, in spite of losses."""
    tiny_bundle(tmp_path / "tiny.bundle")
    place, data = f"{bucket}/mill", f"{bucket}/datasets"
    root, dataset = (open_store(url, s3_server.settings) for url in (place, f"{data}/nightly"))
    with ExitStack() as stack:
        roles = {role: stack.enter_context(restricted_s3(s3_server, role, place, data)) for role in ROLES}
        mill = stack.enter_context(cli_sandbox(tmp_path))
        endpoints = {role: {f"{ENV_PREFIX}S3_ENDPOINT_URL": url} for role, (url, _) in roles.items()}
        mill.environment |= endpoints["client"] | {
            f"{ENV_PREFIX}ROOT": place,
            f"{ENV_PREFIX}REDIS_URL": redis_server.url,
            f"{ENV_PREFIX}S3_REGION": s3_server.region,
            f"{ENV_PREFIX}S3_ACCESS_KEY": s3_server.access_key,
            f"{ENV_PREFIX}S3_SECRET_KEY": s3_server.secret_key,
            f"{ENV_PREFIX}ALLOWED_WEBHOOKS": "http://127.0.0.1:9",
        }
        job = {"channel": "cats", "count": 60, "shard_size": 30, "batch": 16, "destination": data}
        nightly = {"name": "nightly", "start": minutes_ago(datetime.now(UTC), 3), "catch_up": "all", "job": job}
        nightly |= {"retention": {"last": 1, "weeks": 0, "months": 0}, "notifications": HOOK}
        mill.run("push", "tiny.bundle", "--channel", "cats")
        mill.run("schedule", "add", write_schedule(tmp_path, nightly))

        def made() -> list[Run]:
            """The newest first."""
            return [run for run in newest_runs(root, "nightly", 100) if run.state != "skipped"]

        def promoted() -> int:
            return sum(run.state == "promoted" for run in made())

        def wait_until(condition: Callable[[], bool]) -> None:
            mill.wait_until(condition, pause=0.6)  # to look takes many requests

        mill.start("worker", **endpoints["worker"])
        first, _ = (mill.start("scheduler", **endpoints["scheduler"]) for _ in range(2))
        wait_until(lambda: any(run.state != "created" for run in made()))
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: promoted() >= 1)
        redis.Redis.from_url(redis_server.url).flushall()
        wait_until(lambda: promoted() >= 3)
        mill.run("schedule", "pause", "nightly")
        wait_until(lambda: not list(live_markers(root)))

        runs, latest = made(), read_latest(dataset)
        assert {run.state for run in runs} == {"promoted"}
        assert {later.date - run.date for later, run in pairwise(runs)} == {timedelta(minutes=1)}
        assert runs[0].spec is not None
        assert latest is not None
        assert (latest.build, latest.logical_date) == (runs[0].spec.build_id, runs[0].date)
        assert len(list(dataset.children("builds/"))) == 2  # the newest, and the one for a rollback
        reader = s3_server.settings.model_copy(update={"endpoint_url": roles["reader"][0]})
        assert len(list(open_dataset(dataset.url, s3=reader))) == 60
        assert "promoted" in mill.run("schedule", "history", "nightly").stdout
        mill.run("schedule", "remove", "nightly")
        assert "Traceback" not in mill.logs()
        assert [(role, rights.refused) for role, (_, rights) in roles.items() if rights.refused] == []
        with pytest.raises(AccessDenied):
            rollback(open_store(dataset.url, reader), by="a reader")
