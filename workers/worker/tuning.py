"""Suggested worker settings for this machine, without a measurement; `latentmill bench` measures."""

from __future__ import annotations

from pathlib import Path

from generator.production.profiling.suggestion import suggest_worker
from workers.settings import Settings


def tuned_settings(settings: Settings) -> Settings:
    """``settings`` with the suggested concurrency and threads, unless either is set."""
    fixed = settings.model_fields_set & {"concurrency", "threads"}
    if fixed:
        return settings
    suggestion = suggest_worker(cuda=_uses_cuda(settings.device))
    return settings.model_copy(update={"concurrency": suggestion.concurrency, "threads": suggestion.threads})


def _uses_cuda(device: str) -> bool:
    """Whether decoders will run on a CUDA device, found without importing torch."""
    return device.startswith("cuda") or (device == "auto" and Path("/proc/driver/nvidia/version").exists())
