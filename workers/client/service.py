"""What a client asks of a service, whether it reaches Redis and the store itself or a server over HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generator.drafts import JobDraft
from generator.spec.recipe import JobSpec

if TYPE_CHECKING:
    from generator.models.bundle.listing import BundleSummary
    from generator.production.pipeline.run_costs import Pace
    from workers.jobs.job_status import JobStatus
    from workers.jobs.preview import Preview

Submittable = JobSpec | JobDraft | dict[str, Any] | str | Path


class Service(ABC):
    """The operations behind ``Client``; its docstrings hold for both implementations."""

    @abstractmethod
    def submit(self, spec: Submittable) -> JobStatus: ...

    @abstractmethod
    def status(self, job: str) -> JobStatus: ...

    @abstractmethod
    def pace(self, job: str) -> Pace | None: ...

    @abstractmethod
    def pause(self, job: str) -> JobStatus: ...

    @abstractmethod
    def resume(self, job: str, *, tenant: str, new_environment: bool) -> JobStatus: ...

    @abstractmethod
    def cancel(self, job: str) -> JobStatus: ...

    @abstractmethod
    def jobs(self, *, tenant: str | None) -> list[JobStatus]: ...

    @abstractmethod
    def preview(self, spec: Submittable, count: int, seconds: float) -> Preview: ...

    @abstractmethod
    def clone(self, job: str, changes: dict[str, Any]) -> JobStatus: ...

    @abstractmethod
    def bundles(self) -> list[BundleSummary]: ...
