"""The verdicts of gates as pages look at them: many at a time, and held for a moment."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, final

from generator.curation.gates import Verdict, read_verdict
from generator.errors import LatentmillError
from generator.store.base import Store

_HELD = 1000  # verdicts; some 10 KB each
_MAX_HELD_TEXT = 64 * 1024  # characters of a verdict that is held
_FRESH_SECONDS = 30.0  # after which a verdict is read again: `latentmill gate` may have judged the build anew
_READERS = 16


class _Held(NamedTuple):
    read_at: float
    verdict: Verdict | None


@final
class VerdictShelf:
    """The verdicts that were asked for lately, by build. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    def find(self, builds: Sequence[tuple[Store, str]]) -> list[Verdict | None]:
        """What the gates found about builds, each with a text that changes when it is judged again, in their order.

        ``None`` where there is no verdict, or it cannot be read: retention may have deleted the build.
        """
        now = self._clock()
        with self._lock:
            held = [self._held.get((store.url, version)) for store, version in builds]
        old = [number for number, each in enumerate(held) if each is None or now - each.read_at > _FRESH_SECONDS]
        if old:
            with ThreadPoolExecutor(min(_READERS, len(old))) as pool:
                read = pool.map(lambda number: self._read(builds[number], now), old)
                for number, found in zip(old, read, strict=True):
                    held[number] = found
        return [each.verdict if each else None for each in held]

    def _read(self, build: tuple[Store, str], now: float) -> _Held:
        store, version = build
        try:
            verdict = read_verdict(store)
        except LatentmillError:
            return _Held(now, None)  # not held: it may be read the next time
        found = _Held(now, verdict)
        if verdict is None or sum(len(check.words) for check in verdict.checks) <= _MAX_HELD_TEXT:
            self._hold((store.url, version), found)
        return found

    def _hold(self, key: tuple[str, str], found: _Held) -> None:
        with self._lock:
            self._held[key] = found
            self._held.move_to_end(key)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
