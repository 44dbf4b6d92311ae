"""The Prometheus meter: updated once for each shard, in files that the main process of the worker reads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from generator.errors import LatentmillError
from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.stage_times import STAGES
from workers.telemetry.meters import COMMIT_OUTCOMES, SHARD_OUTCOMES, CommitOutcome, Meter, ShardOutcome
from workers.telemetry.process_files import ProcessFiles

log = logging.getLogger(__name__)

TIME_KINDS = ("clock", "processor")
_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0)  # seconds
_OTHER = "other"  # label of errors that are not ours, as their names are unbounded


@final
class PrometheusMeter(Meter):
    """Counters in ``registry``; their errors are logged."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"latentmill_{name}", help_text, labels, registry=registry)

        self._shards = counter("shards", "Claimed shards, by outcome.", "outcome")
        self._commits = counter("commits", "Attempted commits of builds, by outcome.", "outcome")
        self._faults = counter("faults", "Errors in shards and commits, by their type.", "error")
        self._images = counter("images", "Images made, accepted and stored.")
        self._refused = counter("images_refused", "Images that were refused and drawn again.")
        self._bytes = counter("bytes", "Bytes stored, of archives and tables.")
        self._device = counter("device_seconds", "Seconds of decoding, lanes added up.")
        self._stages = counter("stage_seconds", "Seconds of each stage, lanes added up.", "stage", "time")
        self._elapsed = Histogram(
            "latentmill_shard_seconds",
            "Seconds from a shard's first batch to its receipt.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._peak = Gauge(
            "latentmill_device_peak_bytes",
            "Most memory of the device that a batch took.",
            multiprocess_mode="max",
            registry=registry,
        )
        self._init_series()

    def record_run(self, run: RunRecord) -> None:
        with _log_errors():
            self._shards.labels("made").inc()
            self._images.inc(run.samples)
            self._refused.inc(run.refused)
            self._bytes.inc(run.bytes)
            self._device.inc(run.device_seconds)
            for time, seconds in zip(TIME_KINDS, (run.seconds, run.processor_seconds), strict=True):
                for stage, taken in seconds.items():
                    self._stages.labels(stage, time).inc(taken)
            self._elapsed.observe(run.elapsed_seconds)
            self._peak.set(run.peak_device_bytes)

    def count_shard(self, outcome: ShardOutcome) -> None:
        with _log_errors():
            self._shards.labels(outcome).inc()

    def count_commit(self, outcome: CommitOutcome) -> None:
        with _log_errors():
            self._commits.labels(outcome).inc()

    def count_fault(self, error: Exception) -> None:
        with _log_errors():
            self._faults.labels(type(error).__name__ if isinstance(error, LatentmillError) else _OTHER).inc()

    def _init_series(self) -> None:
        """Start all series at zero, so that a rate includes the first event."""
        for outcome in SHARD_OUTCOMES:
            self._shards.labels(outcome)
        for result in COMMIT_OUTCOMES:
            self._commits.labels(result)
        for stage in STAGES:
            for time in TIME_KINDS:
                self._stages.labels(stage, time)
        self._faults.labels(_OTHER)


def open_prometheus_meter() -> PrometheusMeter:
    """The meter of this process, on a file set of the worker's directory that it holds while it lives."""
    files = ProcessFiles()
    # Files are named by their number, not by process id, so that a new process continues those of a killed one.
    values.ValueClass = values.MultiProcessValue(lambda: files.number)  # type: ignore[no-untyped-call]
    return PrometheusMeter(CollectorRegistry())


@contextmanager
def _log_errors() -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception("not counted for the metrics")
