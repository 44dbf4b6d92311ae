"""Runs on the real pool: jobs, gates, promotion and messages; with Redis flushed, and Redis down for a night."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from generator.curation.gates import read_verdict
from generator.datasets.builds import read_manifest
from generator.datasets.promotion import read_latest
from generator.errors import SettingsError
from generator.signatures import make_key
from generator.store import open_store
from tests.support.cli_sandbox import LENIENT_GATES
from tests.support.servers import RedisServer
from tests.support.services import ManualService
from tests.support.simulated_schedules import InlineExecutor, SimulatedClock
from workers.notifications.outbox import FOLDER, OutboxMessage
from workers.schedules.declare import declare
from workers.schedules.manual_runs import start_run
from workers.schedules.runs import Run, read_run, update_run
from workers.schedules.schedule import Schedule
from workers.schedules.service import PoolService
from workers.schedules.store import StoredSchedule
from workers.schedules.ticker import Ticker
from workers.settings import Settings

NIGHT = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)


class Night:
    """A manual service with a schedule and a ticker; tests advance time and serve tickets by hand."""

    def __init__(self, bench: ManualService) -> None:
        self.bench, self.messages = bench, 0
        self.service = PoolService(bench.settings, self._on_message)
        self.clock = SimulatedClock(NIGHT - timedelta(hours=1))
        self.ticker = Ticker(self.service, self.clock, InlineExecutor())

    def declare(self, **fields: Any) -> StoredSchedule:
        job = {"bundle": str(self.bench.bundle), "count": 60, "shard_size": 30, "batch": 16}
        job |= {"destination": str(self.bench.home / "out")}
        schedule = Schedule(**({"name": "nightly", "cron": "30 3 * * *", "job": job, "gates": LENIENT_GATES} | fields))
        return declare(schedule, "sha256:" + "1" * 64, self.service.root, self.bench.settings, self.clock.now())

    def run(self, date: datetime = NIGHT) -> Run:
        run = read_run(self.service.root, "nightly", date)
        assert run is not None
        return run

    def _on_message(self) -> None:
        self.messages += 1


@pytest.fixture
def night(bench: ManualService) -> Night:
    return Night(bench)


def test_a_night_with_everything(night: Night, tmp_path: Path) -> None:
    night.declare(
        retention={"last": 1, "weeks": 0, "months": 0},
        notifications={"webhooks": [{"url": "https://example.org/hook", "secret": "team"}]},
    )
    for day in range(3):
        night.clock.time = NIGHT + timedelta(days=day)
        night.ticker.tick()
        assert night.run(night.clock.time).state == "submitted"
        night.bench.serve(3)
        night.ticker.tick()
        assert night.run(night.clock.time).state == "promoted"
    run, dataset = night.run(night.clock.time), open_store(night.run().dataset)
    assert run.spec is not None
    assert run.spec.recipe.published == run.date.date().isoformat()  # the logical date
    latest = read_latest(dataset)
    assert latest is not None
    assert (latest.build, latest.logical_date) == (run.spec.build_id, run.date)
    builds = [each.spec.build_id for day in range(3) if (each := night.run(NIGHT + timedelta(days=day))).spec]
    assert sorted(dataset.children("builds/")) == sorted(builds[1:])  # the newest, and the one for a rollback
    verdict = read_verdict(dataset.at(f"builds/{run.spec.build_id}"))
    assert verdict is not None
    assert (verdict.holds, verdict.logical_date) == (True, run.date)
    assert night.messages == 3
    messages = [
        OutboxMessage.model_validate_json(night.service.root.get(info.key)) for info in night.service.root.list(FOLDER)
    ]
    assert {message.event.kind for message in messages} == {"succeeded"}
    assert {message.event.build for message in messages} == set(builds)
    assert len({message.event.id for message in messages}) == 3


def test_a_gate_keeps_a_build_back(night: Night) -> None:
    night.declare(gates=LENIENT_GATES | {"images": 61})
    night.clock.time = NIGHT
    night.ticker.tick()
    night.bench.serve(3)
    night.ticker.tick()
    run = night.run()
    assert run.spec is not None
    assert (run.state, run.reason.startswith("images: ")) == ("refused", True)
    dataset = open_store(run.dataset)
    assert read_latest(dataset) is None
    assert read_manifest(dataset.at(f"builds/{run.spec.build_id}")).samples == 60


def test_redis_is_flushed_in_the_night(night: Night) -> None:
    night.declare()
    night.clock.time = NIGHT
    night.ticker.tick()
    night.bench.serve(1)
    night.bench.redis.flushall()
    night.ticker.tick()
    assert night.run().state == "submitted"
    night.bench.reconcile()
    night.bench.serve(2)
    night.ticker.tick()
    assert night.run().state == "promoted"


@pytest.mark.server
def test_redis_is_gone_for_a_night(bundle: Path, tmp_path: Path) -> None:
    server = RedisServer()
    try:
        night = Night(ManualService(server, bundle, tmp_path))
        night.declare(deadline="4h")
        server.kill()
        night.clock.time = NIGHT
        night.ticker.tick()
        assert (night.run().state, "redis" in night.run().note) == ("created", True)
        night.clock.advance(hours=3)
        Ticker(night.service, night.clock, InlineExecutor()).tick()  # a new ticker, as after a restart
        assert "no image made yet" in night.run().at_risk
        server.restart()
        night.ticker.tick()
        assert night.run().state == "submitted"
        night.bench.serve(3)
        server.kill()  # gates and promotion need no Redis
        night.ticker.tick()
        assert night.run().state == "promoted"
    finally:
        server.stop()


def test_a_job_that_a_person_cancels(night: Night) -> None:
    night.declare()
    night.clock.time = NIGHT
    night.ticker.tick()
    spec = night.run().spec
    assert spec is not None
    night.bench.client.cancel(spec.job_id)
    night.ticker.tick()
    assert night.run().state == "cancelled"
    again = start_run(night.service, night.declare(), NIGHT, night.clock.now(), "hand")
    assert (again.take, again.spec) == (2, spec)
    night.ticker.tick()
    night.bench.serve(3)
    night.ticker.tick()
    assert night.run().state == "promoted"


def test_a_run_that_takes_the_place_of_another(night: Night) -> None:
    night.declare(overlap="replace")
    for day in range(2):
        night.clock.time = NIGHT + timedelta(days=day)
        night.ticker.tick()
    first, second = night.run(), night.run(night.clock.time)
    assert (first.state, second.state) == ("replaced", "submitted")
    assert first.spec is not None
    assert night.bench.client.status(first.spec.job_id).state == "cancelled"
    night.bench.serve(3)
    night.ticker.tick()
    assert night.run(night.clock.time).state == "promoted"


def test_a_job_that_fails_says_why(night: Night) -> None:
    night.declare()
    night.clock.time = NIGHT
    night.ticker.tick()
    run = night.run()
    assert run.spec is not None
    assert night.service.progress(run.spec.job_id) == (0, 60)
    night.bench.ticket_handler.pool.fail(run.spec.job_id, "the disk is full")
    night.ticker.tick()
    assert (night.run().state, night.run().reason) == ("failed", "the disk is full")


def test_a_lost_marker_is_a_job_that_is_still_wanted(night: Night) -> None:
    night.declare()
    night.clock.time = NIGHT
    night.ticker.tick()
    run = night.run()
    assert run.spec is not None
    night.service.root.delete(f"open/{run.spec.job_id}.json")
    night.bench.redis.flushall()
    night.ticker.tick()
    night.bench.serve(3)
    night.ticker.tick()
    assert night.run().state == "promoted"


def test_what_another_ticker_holds_is_left_to_it(night: Night) -> None:
    night.declare()
    night.clock.time = NIGHT
    night.ticker.tick()
    night.bench.serve(3)
    held = {"state": "committed", "held_by": "another", "held_until": NIGHT + timedelta(minutes=4)}
    update_run(night.service.root, "nightly", NIGHT, lambda run: run.model_copy(update=held))
    night.ticker.tick()
    assert night.run().state == "committed"
    night.clock.advance(minutes=5)  # the hold has expired
    night.ticker.tick()
    assert night.run().state == "promoted"


def test_a_scheduler_signs_before_it_judges(night: Night, tmp_path: Path) -> None:
    for name in ("ours", "other"):
        make_key(tmp_path / name)
    night.declare(gates=LENIENT_GATES | {"signed": True})
    trusting = {"trusted_keys": str(tmp_path / "ours.pub")}
    keys = {day: tmp_path / name for day, name in enumerate(("other", "ours"))}
    for day, expected in enumerate(("refused", "promoted")):
        own = trusting | {"signing_key_file": keys[day], "openlineage": str(tmp_path / "events")}
        settings = night.bench.settings.model_copy(update=own)
        night.ticker = Ticker(PoolService(settings), night.clock, InlineExecutor())
        night.clock.time = NIGHT + timedelta(days=day)
        night.ticker.tick()
        night.bench.serve(3)
        night.ticker.tick()
        assert night.run(night.clock.time).state == expected
    assert "signed: " in night.run(NIGHT).reason
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"] * 2
    facets = [event["outputs"][0]["facets"] for event in events[1::2]]
    assert [facet["latentmill_promotion"]["state"] for facet in facets] == ["refused", "promoted"]
    assert [facet["latentmill_gates"]["holds"] for facet in facets] == [False, True]
    spec = night.run(NIGHT).spec
    assert spec is not None
    assert facets[0]["version"]["datasetVersion"] == spec.recipe.digest


def test_a_key_file_that_is_none_is_a_setting_to_correct(tmp_path: Path) -> None:
    settings = Settings(trusted_keys=f" {tmp_path / 'none'} ,", signing_key_file=tmp_path / "none")
    with pytest.raises(SettingsError, match=r"^trusted_keys: expected an Ed25519 public key"):
        settings.read_trusted_keys()
    with pytest.raises(SettingsError, match=r"^signing_key_file: expected an unencrypted Ed25519 private key"):
        settings.read_signing_key()
    assert (Settings().read_trusted_keys(), Settings().read_signing_key()) == ((), None)
