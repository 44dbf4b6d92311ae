"""What a scrape is told of the pool as a whole, and of the process that answers. Never fails, and never takes long."""

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
_CACHE_SECONDS = 1.0  # who asks again within them gets the same answer: no number of scrapes is a load for Redis


@dataclass
class _LedgerQuery:
    """One question to the ledger, begun at a moment of ``time.monotonic``; without an answer Redis is away."""

    started: float
    done: threading.Event = field(default_factory=threading.Event)
    result: PoolSnapshot | None = None


@final
class PoolGauges(Collector):
    """The pool as the ledger sees it, asked of ``ask`` in a thread that is waited for ``patience`` seconds."""

    def __init__(self, ask: Callable[[], PoolSnapshot], patience: float) -> None:
        self._read_pool, self._timeout = ask, patience
        self._lock, self._last_query = threading.Lock(), _LedgerQuery(float("-inf"))
        self._last_query.done.set()

    def collect(self) -> Iterable[Metric]:
        standing = self._snapshot()
        yield _gauge("redis_up", "Whether Redis answers.", float(standing is not None))
        if standing is None:
            return
        jobs = GaugeMetricFamily(
            "latentmill_jobs", "Jobs that the pool knows, by state; ended ones for a month.", labels=["state"]
        )
        for state in JOB_STATES:
            jobs.add_metric([state], standing.jobs.get(state, 0))
        yield jobs
        yield _gauge("tickets_waiting", "Tickets that wait in the broker.", standing.tickets)
        yield _gauge("slots", "Processes of all workers that announced themselves lately.", standing.slots)
        yield _gauge("shards_running", "Shards that are being made, by all workers.", standing.running)

    def _snapshot(self) -> PoolSnapshot | None:
        question = self._current_query()
        question.done.wait(max(0.0, question.started + self._timeout - time.monotonic()))
        return question.result

    def _current_query(self) -> _LedgerQuery:
        """The last question, if nobody has answered it yet or did just now; else a new one."""
        with self._lock:
            now = time.monotonic()
            if self._last_query.done.is_set() and now - self._last_query.started > _CACHE_SECONDS:
                self._last_query = _LedgerQuery(now)
                threading.Thread(target=self._run_query, args=(self._last_query,), name="metrics", daemon=True).start()
            return self._last_query

    def _run_query(self, question: _LedgerQuery) -> None:
        try:
            question.result = self._read_pool()
        except BrokerUnavailable:
            pass
        except Exception:
            log.exception("metrics: the ledger cannot be read")
        finally:
            question.done.set()


@final
class ProcessGauges(Collector):
    """The process that answers: its ``role`` and release, and what else is asked of it, by name and explanation."""

    def __init__(self, role: str, release: str, more: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._labels, self._extra = [role, release], more

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("latentmill_info", "Always 1.", labels=["role", "version"])
        info.add_metric(self._labels, 1.0)
        yield info
        for name, (told, value) in self._extra.items():
            yield _gauge(name, told, value())


@final
class PoolCounters(Collector):
    """What the processes of the pool have counted, from the ``files`` they write; nothing if those cannot be read."""

    def __init__(self, files: Collector) -> None:
        self._files = files

    def collect(self) -> Iterator[Metric]:
        try:
            found = list(self._files.collect())
        except Exception:  # they lie on a disk, where anything may happen to them
            log.exception("metrics: the counts of this worker cannot be read")
            return
        yield from found


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"latentmill_{name}", told, value=value)
