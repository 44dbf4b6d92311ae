"""Collectors of a scrape: gauges of the pool and of this process, counters of the process pool. They never fail."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from generator.errors import BrokerUnavailable
from workers.ledger.claims import PoolSnapshot

log = logging.getLogger(__name__)

JOB_STATES = ("open", "paused", "committed", "cancelled", "failed")
_CACHE_SECONDS = 1.0  # scrapes within this time share one query, to limit the load on Redis


@dataclass
class _LedgerQuery:
    """One query of the ledger; ``started`` is a ``time.monotonic``. No result means that Redis is unavailable."""

    started: float
    done: threading.Event = field(default_factory=threading.Event)
    result: PoolSnapshot | None = None


@final
class PoolGauges(Collector):
    """Gauges of the pool from the ledger; ``read_pool`` runs in a thread, and a scrape waits ``timeout`` seconds."""

    def __init__(self, read_pool: Callable[[], PoolSnapshot], timeout: float) -> None:
        self._read_pool, self._timeout = read_pool, timeout
        self._lock, self._last_query = threading.Lock(), _LedgerQuery(float("-inf"))
        self._last_query.done.set()

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        yield _gauge("redis_up", "Whether Redis answers.", float(snapshot is not None))
        if snapshot is None:
            return
        jobs = GaugeMetricFamily(
            "latentmill_jobs", "Jobs in the ledger, by state; ended ones are kept for 30 days.", labels=["state"]
        )
        for state in JOB_STATES:
            jobs.add_metric([state], snapshot.jobs.get(state, 0))
        yield jobs
        yield _gauge("tickets_waiting", "Tickets that wait in the broker.", snapshot.tickets)
        yield _gauge("slots", "Processes of all registered workers.", snapshot.slots)
        yield _gauge("shards_running", "Shards that are being made, by all workers.", snapshot.running)
        waiting = "Shards of open jobs that no worker makes yet, and builds that wait for their commit."
        yield _gauge("shards_waiting", waiting, snapshot.waiting)

    def _snapshot(self) -> PoolSnapshot | None:
        query = self._current_query()
        query.done.wait(max(0.0, query.started + self._timeout - time.monotonic()))
        return query.result

    def _current_query(self) -> _LedgerQuery:
        """The last query if it is still running or at most ``_CACHE_SECONDS`` old, else a new one."""
        with self._lock:
            now = time.monotonic()
            if self._last_query.done.is_set() and now - self._last_query.started > _CACHE_SECONDS:
                self._last_query = _LedgerQuery(now)
                threading.Thread(target=self._run_query, args=(self._last_query,), name="metrics", daemon=True).start()
            return self._last_query

    def _run_query(self, query: _LedgerQuery) -> None:
        try:
            query.result = self._read_pool()
        except BrokerUnavailable:
            pass
        except Exception:
            log.exception("metrics: the ledger cannot be read")
        finally:
            query.done.set()


@final
class ProcessGauges(Collector):
    """Gauges of this process: its role and release, and ``extra`` ones: help text and value function by name."""

    def __init__(self, role: str, release: str, extra: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._labels, self._extra = [role, release], extra

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("latentmill_info", "Always 1.", labels=["role", "version"])
        info.add_metric(self._labels, 1.0)
        yield info
        for name, (help_text, value) in self._extra.items():
            yield _gauge(name, help_text, value())


@final
class PoolCounters(Collector):
    """Counters of the pool's processes, from the ``files`` that they write; empty if those cannot be read."""

    def __init__(self, files: Collector) -> None:
        self._files = files

    def collect(self) -> Iterator[Metric]:
        try:
            metrics = list(self._files.collect())
        except Exception:  # the files may be missing or damaged
            log.exception("metrics: the counts of this worker cannot be read")
            return
        yield from metrics


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"latentmill_{name}", help_text, value=value)
