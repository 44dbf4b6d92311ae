"""This machine: device and driver, room on its disks, and times that fit each other."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from generator.errors import SettingsError
from workers.doctor.findings import Check, Finding, failed, ok, run_checks, warning
from workers.settings import ENV_PREFIX, Settings

_MIN_STATE_BYTES = 64 * 2**20
_DRIVER = Path("/proc/driver/nvidia/version")


def examine_settings(settings: Settings) -> Iterator[Finding]:
    """Settings that are each allowed, and do not fit together."""
    if settings.visibility_timeout < 2 * settings.shard_seconds:
        told = (
            f"LATENTMILL_VISIBILITY_TIMEOUT {settings.visibility_timeout} s, SHARD_SECONDS {settings.shard_seconds} s"
        )
        yield warning("times", told, "let the first be far above the second, or tickets are handed out twice")
    elif settings.lease_seconds < 1.5 * settings.redis_timeout:
        told = f"LATENTMILL_LEASE_SECONDS {settings.lease_seconds} s, REDIS_TIMEOUT {settings.redis_timeout} s"
        yield warning("times", told, "a connection that falls silent once costs the lease; raise the first")
    else:
        yield ok("times", "lease, shard and visibility times fit together")


def examine_disks(settings: Settings) -> Iterator[Finding]:
    """Cache of bundles and state directory: can they be written, by nobody else, and is there room?"""
    checks: dict[str, Check] = {
        "bundle cache": lambda: _check_directory(
            "bundle cache", settings.cache_dir, _cache_growth(settings), "CACHE_DIR"
        ),
        "state directory": lambda: _check_directory(
            "state directory", settings.state_dir, _MIN_STATE_BYTES, "STATE_DIR"
        ),
    }
    yield from run_checks(checks)


def examine_device(settings: Settings) -> Iterator[Finding]:
    """The configured device, tried. Imports torch, which takes seconds."""
    import torch

    cuda = torch.version.cuda or "none"
    yield ok("torch", f"{torch.__version__}, CUDA {cuda}, {torch.get_num_threads()} threads")
    yield from run_checks({"device": lambda: _check_device(settings.device)})


def _check_device(wanted: str) -> Finding:
    import torch

    from generator.models.autoencoders.devices import resolve_device

    try:
        device = resolve_device(wanted)
    except SettingsError as wrong:
        driver = "" if _DRIVER.exists() else "; no NVIDIA driver is loaded"
        return failed("device", f"LATENTMILL_DEVICE={wanted}: {wrong.got}{driver}", wrong.hint or "use another device")
    if device.type != "cuda":
        return ok("device", f"cpu ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores")
    try:
        torch.ones(16, device=device).sum().item()
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as broken:
        mend = "see `nvidia-smi`; driver and CUDA version of torch must fit"
        return failed("device", f"{device}: {str(broken).splitlines()[0]}", mend)
    memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    told = f"{torch.cuda.get_device_name(device)}, {memory}, driver {_driver_version()}"
    if free < total / 10:
        return warning("device", told, "another process holds the memory of this GPU")
    return ok("device", told)


def _driver_version() -> str:
    try:
        words = _DRIVER.read_text(errors="replace").split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def _cache_growth(settings: Settings) -> int:
    """What the cache may still grow by."""
    used = sum(file.stat().st_size for file in settings.cache_dir.rglob("*") if file.is_file())
    return max(0, settings.cache_bytes - used)


def _check_directory(check: str, path: Path, wanted: int, variable: str) -> Finding:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as refused:
        return failed(check, f"{path}: {refused.strerror}", f"make it writable, or set {ENV_PREFIX}{variable}")
    free, facts = shutil.disk_usage(path).free, path.stat()
    told = f"{path}, {free / 2**30:.1f} GiB free"
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        return failed(check, f"{path} can be written by everybody", f"chmod 700 {path}")
    if free < wanted:
        mend = f"make room, or lower {ENV_PREFIX}CACHE_BYTES" if variable == "CACHE_DIR" else "make room"
        return warning(check, f"{told}, and up to {wanted / 2**30:.1f} GiB may be written", mend)
    return ok(check, told)
