"""Writers in other processes that are killed (SIGKILL) in the middle of a write.

A host process reads jobs, one JSON line each. For each job it forks a writer, which unpickles the store, connects,
reports that it is ready, and writes; the host kills it after the given time. Forking is quicker than starting a new
interpreter for each writer. The host reaps a writer only after the kill, so its id is not reused before.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal, NoReturn, Self, final

from generator.store import Store
from generator.testing.contents import content_of
from generator.testing.expectations import Violation

Operation = Literal["create", "replace", "put"]
_HOST = "from generator.testing.killed_writer import serve; serve()"
_PATIENCE_SECONDS = 60.0
_READY = b"\0"


@dataclass(frozen=True)
class WriteJob:
    """A write of ``content_of(number, size)``."""

    operation: Operation
    key: str
    number: int
    size: int  # bytes
    etag: str = ""  # of the version that ``replace`` overwrites

    def run(self, store: Store) -> str:
        """Write; the new etag."""
        data = content_of(self.number, self.size)
        if self.operation == "replace":
            return store.replace(self.key, data, self.etag)
        return store.create(self.key, data) if self.operation == "create" else store.put(self.key, data)


@dataclass(frozen=True)
class Outcome:
    """The end of a writer."""

    seconds: float  # from ready to ended
    killed: bool
    failed: str = ""  # the error that the store raised: its class, a colon, its text


@final
class KilledWriter:
    """The test's side of the host process; a context manager that ends the host."""

    def __enter__(self) -> Self:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._errors = tempfile.TemporaryFile()
        self._host = subprocess.Popen(
            [sys.executable, "-c", _HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C goes to the test, which ends the host
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._host.poll() is None:
            os.killpg(self._host.pid, signal.SIGKILL)  # and a writer that still writes
        self._host.communicate()
        self._errors.close()

    def write(self, store: Store, job: WriteJob, kill_after: float | None = None) -> Outcome:
        """Run ``job`` in another process; it is killed ``kill_after`` seconds after it began to write.

        Raises ``Violation`` for a store that does not work in another process.
        """
        line = {"store": base64.b64encode(pickle.dumps(store)).decode(), "job": asdict(job), "kill_after": kill_after}
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        with suppress(BrokenPipeError):  # the host has ended: there is no answer
            self._host.stdin.write(json.dumps(line).encode() + b"\n")
            self._host.stdin.flush()
        if not select.select([self._host.stdout], [], [], _PATIENCE_SECONDS)[0]:
            raise Violation(f"{job.operation} in another process did not return within {_PATIENCE_SECONDS:.0f} s")
        answer = self._host.stdout.readline()
        if not answer:
            raise Violation(f"the store cannot be used in another process: {self._last_error()}")
        return Outcome(**json.loads(answer))

    def _last_error(self) -> str:
        self._host.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with code {self._host.returncode}"


def serve() -> None:
    """The host: run jobs from standard input, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of the store must not mix with the answers
    for line in sys.stdin:
        asked = json.loads(line)
        pickled = base64.b64decode(asked["store"])
        pickle.loads(pickled)  # imports the store's module once, before the forks
        outcome = _run(pickled, WriteJob(**asked["job"]), asked["kill_after"])
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()


def _run(pickled: bytes, job: WriteJob, kill_after: float | None) -> Outcome:
    said, say = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(said)
        _write_and_exit(pickled, job, say)
    os.close(say)
    first = os.read(said, 1)  # ready, failed, or dead
    began = time.monotonic()
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(writer, signal.SIGKILL)
    _, status = os.waitpid(writer, 0)
    seconds = time.monotonic() - began
    with os.fdopen(said, "rb") as rest:
        failed = first.removeprefix(_READY) + rest.read()
    return Outcome(seconds, os.WIFSIGNALED(status), failed.decode(errors="replace"))


def _write_and_exit(pickled: bytes, job: WriteJob, say: int) -> NoReturn:
    try:
        store: Store = pickle.loads(pickled)
        store.head(job.key)  # connects before the clock starts
        os.write(say, _READY)
        job.run(store)
    except BaseException as failed:
        os.write(say, f"{type(failed).__name__}: {failed}"[:1000].encode())
        os._exit(1)
    os._exit(0)
