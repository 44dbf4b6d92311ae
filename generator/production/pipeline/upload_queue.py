"""Uploads shards while the next ones are made, and writes their run records to ``runs/``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import final

from generator.errors import StoreError
from generator.production.commit import BuildLocation, publish_shard, write_run_record
from generator.production.pipeline.run_record import RunRecord, process_token
from generator.production.pipeline.shard_maker import TimedShard

# Shards queued behind the current upload: a slow store slows production down instead of filling memory.
_MAX_WAITING = 1


@dataclass(frozen=True, eq=False)
class Upload:
    """One shard to upload, made under one lease."""

    shard: TimedShard
    lease: str

    def publish(self, location: BuildLocation) -> RunRecord:
        """Publish the shard and write its run record, which is returned. Raises the errors of ``publish_shard``."""
        with self.shard.times.measure("upload"):
            publish_shard(location, self.shard.finished)
        run = self._run_record()
        with suppress(StoreError):  # a missing run record must not fail a finished shard
            write_run_record(location, self.lease, run.facts())
        return run

    def _run_record(self) -> RunRecord:
        receipt, times = self.shard.finished.receipt, self.shard.times
        return RunRecord(
            shard=receipt.number,
            samples=receipt.samples,
            refused=receipt.refused,
            bytes=receipt.bytes,
            ended=datetime.now(UTC),
            elapsed_seconds=round(time.perf_counter() - self.shard.started, 6),
            lanes=self.shard.lanes,
            process=process_token(),
            device=self.shard.environment.device[:200],
            execution=self.shard.environment.execution,
            peak_device_bytes=self.shard.peak_bytes,
            seconds={stage: round(seconds, 6) for stage, seconds in times.clock.items()},
            processor_seconds={stage: round(seconds, 6) for stage, seconds in times.processor.items()},
        )


@final
class UploadQueue:
    """A context manager with one thread that uploads shards in order. Its exit waits for all uploads.

    ``on_published`` is called there with the number of each shard that was uploaded. The error of a failed upload is
    raised by a later ``submit``, or at the exit.
    """

    def __init__(self, location: BuildLocation, on_published: Callable[[int], None] = lambda _: None) -> None:
        self._location, self._on_published = location, on_published
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._pending = deque[Future[RunRecord]]()

    def submit(self, upload: Upload) -> None:
        """Queue ``upload``. Blocks while the queue is full."""
        while len(self._pending) > _MAX_WAITING or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._publish, upload))

    def _publish(self, upload: Upload) -> RunRecord:
        run = upload.publish(self._location)
        self._on_published(run.shard)
        return run

    def __enter__(self) -> UploadQueue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for upload in self._pending:
                upload.result()
