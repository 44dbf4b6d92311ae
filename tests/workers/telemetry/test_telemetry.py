"""Metrics: names and labels, counters that survive a killed process, gauges with a time limit, ports that are taken."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from generator.errors import BrokerUnavailable, SettingsError, StoreUnavailable
from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.stage_times import STAGES
from workers.ledger.claims import PoolSnapshot
from workers.settings import Settings
from workers.telemetry import Exporter, NullMeter, check_ports, open_meter, with_port
from workers.telemetry.gauges import PoolCounters, PoolGauges, ProcessGauges
from workers.telemetry.process_files import DIR_VARIABLE, MultiprocessDir
from workers.telemetry.prometheus_meter import PrometheusMeter

ROOT = Path(__file__).parents[3]
SNAPSHOT = PoolSnapshot({"open": 2, "committed": 5, "odd": 1}, 4, 3, 2, 6)
# A process of the pool: counts the given number of shards, prints "counted", and waits to be killed.
CHILD = """
import sys
from tests.workers.telemetry.test_telemetry import run
from workers.telemetry.prometheus_meter import open_prometheus_meter
meter = open_prometheus_meter()
for _ in range(int(sys.argv[1])):
    meter.record_run(run())
print("counted", flush=True)
sys.stdin.read()
"""


def run() -> RunRecord:
    seconds = dict.fromkeys(STAGES, 0.25)
    return RunRecord(
        shard=7, samples=100, refused=3, bytes=5000, elapsed_seconds=2.5, seconds=seconds, processor_seconds=seconds
    )


def read(text: str) -> dict[str, float]:
    """The samples of a scrape by name and labels."""
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(*collectors: object) -> dict[str, float]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)  # type: ignore[arg-type]
    return read(generate_latest(registry).decode())


@pytest.fixture
def counted() -> tuple[PrometheusMeter, CollectorRegistry]:
    """A meter of this process alone, and its registry."""
    registry = CollectorRegistry()
    return PrometheusMeter(registry), registry


def test_a_shard_is_counted_with_all_it_took(counted: tuple[PrometheusMeter, CollectorRegistry]) -> None:
    meter, registry = counted
    meter.record_run(run())
    meter.record_run(run())
    found = read(generate_latest(registry).decode())
    assert found["latentmill_shards_total{outcome=made}"] == 2
    assert found["latentmill_images_total"] == 200
    assert found["latentmill_images_refused_total"] == 6
    assert found["latentmill_bytes_total"] == 10_000
    assert found["latentmill_device_seconds_total"] == 0.5
    assert found["latentmill_stage_seconds_total{stage=upload}{time=processor}"] == 0.5
    assert found["latentmill_shard_seconds_count"] == 2
    assert found["latentmill_shard_seconds_bucket{le=5.0}"] == 2
    assert found["latentmill_shard_seconds_bucket{le=2.0}"] == 0


def test_names_and_labels_are_those_of_prometheus_and_bounded(
    counted: tuple[PrometheusMeter, CollectorRegistry],
) -> None:
    meter, registry = counted

    class Odd(Exception):
        pass

    before = set(read(generate_latest(registry).decode()))
    meter.record_run(run())
    for number in range(50):
        meter.count_fault(type(f"Error{number}", (Odd,), {})())
    meter.count_fault(StoreUnavailable("s3", "an answer", "none at s3://secret-bucket/job-0123456789ab"))
    meter.count_shard("declined")
    meter.count_commit("committed")
    text = generate_latest(registry).decode()
    after = set(read(text))
    assert {name for name in after - before if "_created" not in name} == {
        "latentmill_faults_total{error=StoreUnavailable}"
    }
    assert "secret-bucket" not in text
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"latentmill_[a-z_]+", family.name)
        assert family.documentation
        assert {label for sample in family.samples for label in sample.labels} <= {
            *("outcome", "stage", "time", "error", "le")
        }


def test_every_series_is_in_the_table_for_operators(counted: tuple[PrometheusMeter, CollectorRegistry]) -> None:
    page = (ROOT / "docs/operations.md").read_text()
    own = ProcessGauges("scheduler", "1.0", {"scheduler_silent_seconds": ("", lambda: 0.0)})
    families = [*counted[1].collect(), *PoolGauges(lambda: SNAPSHOT, 1.0).collect(), *own.collect()]
    names = [f"{family.name}_total" if family.type == "counter" else family.name for family in families]
    assert len(names) == 18
    assert [name for name in names if f"| `{name}" not in page] == []
    assert set(re.findall(r"latentmill_[a-z_]+", page)) <= set(names)


def test_the_example_for_prometheus_is_whole() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    (scraping,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL))
    assert scraping["scrape_configs"][0]["static_configs"][0]["targets"]


def test_telemetry_that_is_broken_harms_nobody(
    counted: tuple[PrometheusMeter, CollectorRegistry],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    meter, registry = counted
    before = read(generate_latest(registry).decode())

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Counter, "inc", full)
    meter.record_run(run())
    meter.count_shard("declined")
    meter.count_commit("committed")
    meter.count_fault(StoreUnavailable("s3", "an answer", "none"))
    assert caplog.messages == ["not counted for the metrics"] * 4
    after = read(generate_latest(registry).decode())
    assert {name: after[name] for name in before if "_created" not in name} == {
        name: value for name, value in before.items() if "_created" not in name
    }


def test_a_meter_that_cannot_be_opened_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_meter(Settings()), NullMeter)
    monkeypatch.delenv(DIR_VARIABLE, raising=False)
    assert isinstance(open_meter(Settings(metrics_port=1)), NullMeter)
    monkeypatch.setenv(DIR_VARIABLE, str(tmp_path / "gone"))
    assert isinstance(open_meter(Settings(metrics_port=1)), NullMeter)


def counting_child(shards: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(shards)]
    child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "counted\n"
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


@pytest.mark.slow
def test_a_new_process_continues_the_counters_of_a_killed_one(tmp_path: Path) -> None:
    from prometheus_client.multiprocess import MultiProcessCollector

    directory = MultiprocessDir(tmp_path / "metrics")
    try:
        files = PoolCounters(MultiProcessCollector(None, str(directory.path)))
        assert scraped(files) == {}
        first, second = counting_child(2), counting_child(3)
        assert scraped(files)["latentmill_images_total"] == 500
        kill(first)
        assert scraped(files)["latentmill_images_total"] == 500
        third = counting_child(1)
        assert scraped(files)["latentmill_images_total"] == 600
        assert scraped(files)["latentmill_shard_seconds_count"] == 6
        kill(second)
        kill(third)
        assert scraped(files)["latentmill_shards_total{outcome=made}"] == 6
        assert len(list(directory.path.glob("counter_*.db"))) == 2
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    finally:
        directory.close()
    assert not directory.path.exists()


@pytest.mark.slow
def test_the_directory_of_a_killed_worker_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    home = tmp_path / "metrics"
    code = (
        "import sys; from pathlib import Path; from workers.telemetry.process_files import *;"
        "d = MultiprocessDir(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(home)], cwd=ROOT, check=True)
    (home / "worker-odd").mkdir()
    (home / "notes").mkdir()
    assert len(list(home.glob("worker-*"))) == 2
    living = MultiprocessDir(home)
    other = MultiprocessDir(home)
    assert {path for path in home.iterdir() if path.is_dir()} == {living.path, other.path, home / "notes"}
    other.close()
    living.close()


def test_files_that_cannot_be_read_are_no_failed_scrape(tmp_path: Path) -> None:
    from prometheus_client.multiprocess import MultiProcessCollector

    (tmp_path / "counter_0.db").write_bytes(b"\xff" * 100)
    assert scraped(PoolCounters(MultiProcessCollector(None, str(tmp_path)))) == {}


def test_the_pool_is_told_and_what_is_no_state_is_not() -> None:
    found = scraped(PoolGauges(lambda: SNAPSHOT, 1.0))
    assert found == {
        "latentmill_redis_up": 1,
        "latentmill_jobs{state=open}": 2,
        "latentmill_jobs{state=paused}": 0,
        "latentmill_jobs{state=committed}": 5,
        "latentmill_jobs{state=cancelled}": 0,
        "latentmill_jobs{state=failed}": 0,
        "latentmill_tickets_waiting": 3,
        "latentmill_slots": 4,
        "latentmill_shards_running": 2,
        "latentmill_shards_waiting": 6,
    }


def test_a_redis_that_is_away_or_odd_is_told() -> None:
    def away() -> PoolSnapshot:
        raise BrokerUnavailable("redis", "an answer", "none")

    def odd() -> PoolSnapshot:
        raise KeyError("odd")

    assert scraped(PoolGauges(away, 1.0)) == {"latentmill_redis_up": 0}
    assert scraped(PoolGauges(odd, 1.0)) == {"latentmill_redis_up": 0}


def test_a_redis_that_is_silent_holds_nobody_up_and_is_asked_once() -> None:
    asked, free = [], threading.Event()

    def silent() -> PoolSnapshot:
        asked.append(1)
        free.wait(30)
        return SNAPSHOT

    gauges = PoolGauges(silent, 0.3)
    begun = time.monotonic()
    for _ in range(5):
        assert scraped(gauges) == {"latentmill_redis_up": 0}
    assert time.monotonic() - begun < 2.0
    assert asked == [1]
    free.set()
    deadline = time.monotonic() + 10
    while scraped(gauges)["latentmill_redis_up"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_scrapes_are_one_question() -> None:
    asked = []

    def ask() -> PoolSnapshot:
        asked.append(1)
        return SNAPSHOT

    gauges = PoolGauges(ask, 1.0)
    for _ in range(20):
        scraped(gauges)
    assert len(asked) < 5


def test_a_port_that_is_taken_is_said_before_anything_begins() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"LATENTMILL_METRICS_PORT: .*127\.0\.0\.1:{port}"):
            check_ports([Settings(metrics_port=port)])
    check_ports([Settings(metrics_port=port), Settings()])


def test_addresses_and_ports_that_are_none() -> None:
    with pytest.raises(SettingsError, match="METRICS_HOST"):
        check_ports([Settings(metrics_port=9999, metrics_host="no such host")])
    with pytest.raises(SettingsError, match="65535"):
        check_ports([with_port(Settings(metrics_port=65535), 1)])
    assert with_port(Settings(), 3).metrics_port is None


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SettingsError, match="LATENTMILL_STATE_DIR"):
        Exporter(Settings(metrics_port=1, state_dir=tmp_path / "state"), "worker").start()
