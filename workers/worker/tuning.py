"""Settings that suit the machine a worker runs on. Nothing is measured: `latentmill bench` does that."""

from __future__ import annotations

from pathlib import Path

from generator.production.profiling.suggestion import suggest_worker
from workers.settings import Settings


def tuned_settings(settings: Settings) -> Settings:
    """``settings`` with the suggested concurrency and threads, where neither is set."""
    fixed = settings.model_fields_set & {"concurrency", "threads"}
    if fixed:
        return settings
    found = suggest_worker(cuda=_uses_cuda(settings.device))
    return settings.model_copy(
        update={"concurrency": found.concurrency, "threads": found.threads},
    )


def _uses_cuda(device: str) -> bool:
    """Whether decoders will run on a CUDA device; torch is not imported to know."""
    return device.startswith("cuda") or (device == "auto" and Path("/proc/driver/nvidia/version").exists())
