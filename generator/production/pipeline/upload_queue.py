"""Shards into the store, beside the making of the next ones; and what each took, into ``runs/``."""

from __future__ import annotations

import time
from collections import deque
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

_MAX_WAITING = 1  # shards that wait while one is uploaded: a slow store slows the making down instead of filling memory


@dataclass(frozen=True, eq=False)
class Upload:
    """One shard on its way into the store, under one lease."""

    shard: TimedShard
    lease: str

    def publish(self, location: BuildLocation) -> RunRecord:
        """Publish the shard; what it took. Raises what ``publish_shard`` raises."""
        with self.shard.times.measure("upload"):
            publish_shard(location, self.shard.finished)
        run = self._run_record()
        with suppress(StoreError):  # the shard is done; nobody makes it again for want of its times
            write_run_record(location, self.lease, run.facts())
        return run

    def _run_record(self) -> RunRecord:
        made, times = self.shard.finished.receipt, self.shard.times
        return RunRecord(
            shard=made.number,
            samples=made.samples,
            refused=made.refused,
            bytes=made.shard.size + made.table.size,
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
    """A thread that uploads one shard after the other. Leaving the block waits for all of them.

    An upload that failed raises at the next ``hand``, or at the end.
    """

    def __init__(self, location: BuildLocation) -> None:
        self._place = location
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._pending = deque[Future[RunRecord]]()

    def submit(self, upload: Upload) -> None:
        """Upload it as soon as those before it are; waits while there are too many of them."""
        while len(self._pending) > _MAX_WAITING or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(upload.publish, self._place))

    def __enter__(self) -> UploadQueue:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for upload in self._pending:
                upload.result()
