"""A TCP proxy that delays, throttles, cuts, resets or silences connections; its faults can be changed while it runs.

Random draws depend on a seed and the number of the connection, so that a run can be repeated as far as the order of
connections can.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

_CHUNK = 65536
_TICK = 0.1  # seconds between two checks of a waiting thread whether it should stop

Ending = Literal["cut", "reset"]


@dataclass(frozen=True)
class NetworkFaults:
    """The faults of every chunk, in either direction; none by default."""

    delay: tuple[float, float] = (0.0, 0.0)  # seconds, drawn uniformly between the two
    rate: float | None = None  # bytes per second; None is unlimited
    cut: float = 0.0  # chance that half of a chunk is forwarded and the connection closed (FIN)
    reset: float = 0.0  # chance that a chunk is dropped and the connection reset (RST)
    silent: float = 0.0  # chance that a chunk and all after it are dropped, with the connection left open


NO_FAULTS = NetworkFaults()


class Connection:
    """One connection: two sockets and two threads; while ``silent`` is set, all data are dropped."""

    def __init__(self, number: int, near: socket.socket, far: socket.socket) -> None:
        self.number, self.near, self.far = number, near, far
        self.silent = threading.Event()
        self.ended = threading.Event()

    def end(self, how: Ending) -> None:
        """Close both sides: with FIN for ``cut``, with RST for ``reset``. The threads notice and end."""
        self.ended.set()
        for side in (self.near, self.far):
            with suppress(OSError):
                if how == "reset":
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    side.shutdown(socket.SHUT_RDWR)
            side.close()


class TcpProxy:
    """Listens on a loopback port and forwards bytes to the port ``target``, with the present ``faults``.

    If nothing listens on ``target``, a connection is closed at once, as by the port of a dead server.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target, self.seed = target, seed
        self.faults = NO_FAULTS
        self.counts: Counter[str] = Counter()
        self._links: set[Connection] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(_TICK)
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, name=f"wire-{self.port}", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open())

    def cut(self) -> int:
        """Close all open connections (FIN); return their number."""
        return self._end_all("cut")

    def reset(self) -> int:
        """Reset all open connections (RST); return their number."""
        return self._end_all("reset")

    def silence(self) -> int:
        """Drop all further data of the open connections without closing them; return their number.

        New connections work, as when a firewall or a router has forgotten the old ones.
        """
        links = self._open()
        for link in links:
            link.silent.set()
        self.counts["silenced"] += len(links)
        return len(links)

    def stop(self) -> None:
        """Close everything and wait for all threads."""
        self._stopped.set()
        self._end_all("cut")
        self._threads[0].join()
        self._end_all("cut")  # one may have been accepted in the meantime
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def _open(self) -> list[Connection]:
        with self._lock:
            return list(self._links)

    def _end_all(self, how: Ending) -> int:
        links = self._open()
        for link in links:
            self._drop(link, how)
        return len(links)

    def _drop(self, link: Connection, how: Ending) -> None:
        with self._lock:
            if link not in self._links:
                return
            self._links.remove(link)
            self.counts[how] += 1
        link.end(how)

    def _accept(self) -> None:
        number = 0
        while not self._stopped.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5.0)
            except OSError:
                near.close()
                continue
            for side in (near, far):
                side.settimeout(None)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Connection(number, near, far)
            with self._lock:
                self._links.add(link)  # from here on another thread may close it
            for name, source, sink in (("up", near, far), ("down", far, near)):
                self._begin(lambda link=link, name=name, source=source, sink=sink: self._pass(link, name, source, sink))
            number += 1

    def _begin(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _pass(self, link: Connection, direction: str, source: socket.socket, sink: socket.socket) -> None:
        draw = random.Random(f"{self.seed}/{link.number}/{direction}")
        how: Ending = "cut"
        try:
            while (data := self._received(link, source)) and (fate := self._forward(link, draw, data, sink)) != "cut":
                if fate == "reset":
                    how = "reset"
                    break
        except (OSError, ValueError):  # closed by another thread
            pass
        self._drop(link, how)

    def _received(self, link: Connection, source: socket.socket) -> bytes:
        while not link.ended.is_set():
            if select.select([source], [], [], _TICK)[0]:
                return source.recv(_CHUNK)
        return b""

    def _forward(self, link: Connection, draw: random.Random, data: bytes, sink: socket.socket) -> Ending | None:
        trouble = self.faults
        chance = draw.random()
        if chance < trouble.silent:
            link.silent.set()
            self.counts["silenced"] += 1
        chance -= trouble.silent
        if link.silent.is_set():
            return None
        if 0 <= chance < trouble.reset:
            return "reset"
        cut = 0 <= chance - trouble.reset < trouble.cut
        if (pause := draw.uniform(*trouble.delay)) > 0:
            self.counts["delayed"] += 1
            link.ended.wait(pause)
        self._send(link, data[: len(data) // 2] if cut else data, sink, trouble.rate)
        return "cut" if cut else None

    def _send(self, link: Connection, data: bytes, sink: socket.socket, rate: float | None) -> None:
        if rate is None:
            return sink.sendall(data)
        self.counts["throttled"] += 1
        step = max(1, int(rate * _TICK))
        for start in range(0, len(data), step):
            if link.ended.is_set():
                return
            part = data[start : start + step]
            sink.sendall(part)
            time.sleep(len(part) / rate)
