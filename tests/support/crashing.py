"""A store and a schedule service that kill their user, by ``Killed``, before or after a write or a call."""

from __future__ import annotations

from typing import Any

from generator.spec.recipe import JobSpec
from generator.store import Store
from tests.support.simulated_schedules import Killed, SimulatedService
from workers.schedules.runs import Run
from workers.schedules.service import Outcome


class CrashingStore(Store):
    """A store that raises ``Killed`` before or right after its ``fatal``-th write, counted from 1."""

    def __init__(self, store: Store, fatal: int, *, after: bool) -> None:
        self._store, self.writes_left, self._after, self.url = store, fatal, after, store.url

    def _write(self, name: str, *words: Any) -> Any:
        self.writes_left -= 1
        if self.writes_left == 0 and not self._after:
            raise Killed
        try:
            return getattr(self._store, name)(*words)
        finally:
            if self.writes_left == 0:
                raise Killed

    def create(self, key: str, data: bytes) -> str:
        return str(self._write("create", key, data))

    def replace(self, key: str, data: bytes, etag: str) -> str:
        return str(self._write("replace", key, data, etag))

    def put(self, key: str, data: bytes) -> str:
        return str(self._write("put", key, data))

    def delete(self, key: str) -> None:
        self._write("delete", key)

    def get(self, key: str, *words: Any) -> bytes:
        return self._store.get(key, *words)

    def read(self, key: str, start: int, length: int) -> bytes:
        return self._store.read(key, start, length)

    def head(self, key: str) -> Any:
        return self._store.head(key)

    def list(self, prefix: str = "") -> Any:
        return self._store.list(prefix)

    def children(self, prefix: str = "") -> Any:
        return self._store.children(prefix)

    def check_writable(self) -> None:
        self._store.check_writable()

    def at(self, prefix: str) -> Store:
        return self._store.at(prefix)


class CrashingService(SimulatedService):
    """A simulated service on another store, that raises ``Killed`` before or after the method named ``call``."""

    def __init__(self, pool: SimulatedService, store: Store, call: str = "", *, after: bool = False) -> None:
        super().__init__(store, pool.clock, pool.build_time)
        self.__dict__ |= {name: value for name, value in pool.__dict__.items() if name != "_root"}
        self._call, self._after = call, after

    def _run(self, name: str, *words: Any) -> Any:
        if name == self._call and not self._after:
            raise Killed
        result = getattr(super(), name)(*words)
        if name == self._call:
            raise Killed
        return result

    def submit(self, spec: JobSpec) -> None:
        self._run("submit", spec)

    def check_gates(self, run: Run) -> Outcome:
        return self._run("check_gates", run)  # type: ignore[no-any-return]

    def promote(self, run: Run) -> Outcome:
        return self._run("promote", run)  # type: ignore[no-any-return]
