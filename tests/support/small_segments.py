"""The worker of ``workers.worker.tasks`` with segments of three shards, for ``celery -A``. Not for import by tests."""

from __future__ import annotations

from generator.spec import plan

plan.SEGMENT_SHARDS = 3

from workers.worker.tasks import app  # noqa: E402

app.conf.imports = (*app.conf.imports, __name__)  # in the processes of the pool, too

__all__ = ["app"]
