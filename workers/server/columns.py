"""The columns of the builds that are looked at: open, or gathered in the background while pages show how far it is."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import final

from generator.datasets.exploration.column_cache import ColumnCache
from generator.datasets.exploration.columns import Columns
from generator.datasets.exploration.gather import check_size
from generator.errors import WorkerUnavailable
from workers.server.builds import CommittedBuild

_HELD = 16  # builds whose columns are open
_GATHERED_AT_ONCE = 2
_MAX_WAITING = 20
_DELAY_SECONDS = 0.5  # before gathering begins: the first images of the build go first


@dataclass
class Gathering:
    """Columns that are being gathered: tables read so far, and all of them."""

    total: int
    done: int = 0
    future: Future[Columns] | None = field(default=None, repr=False)


@final
class ColumnShelf:
    """Open columns by build, and those that are being gathered. Safe to use from several threads."""

    def __init__(self, cache: ColumnCache) -> None:
        self._cache, self._lock = cache, threading.Lock()
        self._pool = ThreadPoolExecutor(_GATHERED_AT_ONCE, thread_name_prefix="columns")
        self._open: OrderedDict[str, tuple[CommittedBuild, Columns]] = OrderedDict()
        self._gathering: dict[str, Gathering] = {}

    def find(self, build: CommittedBuild) -> Columns | Gathering:
        """The columns of a build, or how far gathering them is; it begins with the first call.

        Raises what ``gather_columns`` raises, once: the next call begins again.
        """
        check_size(build.manifest)
        url = build.store.url
        with self._lock:
            held = self._open.get(url)
            if held is not None and held[0].manifest is build.manifest:
                self._open.move_to_end(url)
                return held[1]
            running = self._gathering.get(url)
        if running is None:
            found = self._cache.find(build.manifest)
            return self._hold(build, found) if found is not None else self._begin(build)
        if running.future is None or not running.future.done():
            return running
        with self._lock:
            self._gathering.pop(url, None)
        return self._hold(build, running.future.result())

    def get(self, build: CommittedBuild) -> Columns:
        """Like ``find``; raises ``WorkerUnavailable`` while they are being gathered."""
        found = self.find(build)
        if isinstance(found, Gathering):
            got = f"{found.done} of {found.total} tables so far"
            raise WorkerUnavailable("columns", "columns that are gathered", got, "ask again in a few seconds")
        return found

    def find_open(self, build: CommittedBuild) -> Columns | None:
        """The columns of a build if they have been gathered; nothing begins."""
        with self._lock:
            held = self._open.get(build.store.url)
        if held is not None and held[0].manifest is build.manifest:
            return held[1]
        found = self._cache.find(build.manifest)
        return None if found is None else self._hold(build, found)

    def _begin(self, build: CommittedBuild) -> Gathering:
        url, state = build.store.url, Gathering(len(build.manifest.shards))

        def gather() -> Columns:
            time.sleep(_DELAY_SECONDS)
            return self._cache.get(build.reader, build.manifest, lambda done: setattr(state, "done", done))

        with self._lock:
            if url in self._gathering:
                return self._gathering[url]
            if len(self._gathering) < _MAX_WAITING:
                self._gathering[url] = state
                state.future = self._pool.submit(gather)
            return state

    def _hold(self, build: CommittedBuild, columns: Columns) -> Columns:
        with self._lock:
            self._open[build.store.url] = build, columns
            self._open.move_to_end(build.store.url)
            while len(self._open) > _HELD:
                self._open.popitem(last=False)
        return columns
