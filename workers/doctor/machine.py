"""Checks of this machine: consistent time settings, writable directories with free space, device and driver."""

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
    """Find time settings that are valid each but inconsistent with each other."""
    visibility, shard = settings.visibility_timeout, settings.shard_seconds
    lease, timeout = settings.lease_seconds, settings.redis_timeout
    if visibility < 2 * shard:
        found = f"LATENTMILL_VISIBILITY_TIMEOUT {visibility} s, SHARD_SECONDS {shard} s"
        mend = "raise VISIBILITY_TIMEOUT to at least twice SHARD_SECONDS, or tickets are delivered twice"
        yield warning("times", found, mend)
    elif lease < 1.5 * timeout:
        found = f"LATENTMILL_LEASE_SECONDS {lease} s, REDIS_TIMEOUT {timeout} s"
        mend = "raise LEASE_SECONDS to at least 1.5 x REDIS_TIMEOUT, or one dead connection loses the lease"
        yield warning("times", found, mend)
    else:
        yield ok("times", "lease, shard and visibility times are consistent")


def examine_disks(settings: Settings) -> Iterator[Finding]:
    """Check that bundle cache and state directory are writable, not world-writable, and have free space."""
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
    """Try the configured device. Imports torch, which takes seconds."""
    import torch

    cuda = torch.version.cuda or "none"
    yield ok("torch", f"{torch.__version__}, CUDA {cuda}, {torch.get_num_threads()} threads")
    yield from run_checks({"device": lambda: _check_device(settings.device)})


def _check_device(wanted: str) -> Finding:
    import torch

    from generator.models.autoencoders.devices import resolve_device
    from generator.spec.machine import usable_cores

    try:
        device = resolve_device(wanted)
    except SettingsError as wrong:
        driver = "" if _DRIVER.exists() else "; no NVIDIA driver is loaded"
        return failed("device", f"LATENTMILL_DEVICE={wanted}: {wrong.got}{driver}", wrong.hint or "use another device")
    if device.type != "cuda":
        return ok("device", f"cpu ({torch.backends.cpu.get_cpu_capability()}), {usable_cores()} cores")
    try:
        torch.ones(16, device=device).sum().item()
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as broken:
        mend = "see `nvidia-smi`; the driver must support torch's CUDA version"
        return failed("device", f"{device}: {str(broken).splitlines()[0]}", mend)
    memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    found = f"{torch.cuda.get_device_name(device)}, {memory}, driver {_driver_version()}"
    if free < total / 10:
        return warning("device", found, "another process uses the memory of this GPU")
    return ok("device", found)


def _driver_version() -> str:
    try:
        words = _DRIVER.read_text(errors="replace").split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def _cache_growth(settings: Settings) -> int:
    """The bytes by which the bundle cache may still grow."""
    used = sum(file.stat().st_size for file in settings.cache_dir.rglob("*") if file.is_file())
    return max(0, settings.cache_bytes - used)


def _check_directory(check: str, path: Path, needed: int, variable: str) -> Finding:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as refused:
        return failed(check, f"{path}: {refused.strerror}", f"make it writable, or set {ENV_PREFIX}{variable}")
    free, mode = shutil.disk_usage(path).free, path.stat().st_mode
    found = f"{path}, {free / 2**30:.1f} GiB free"
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return failed(check, f"{path} can be written by everybody", f"chmod 700 {path}")
    if free < needed:
        mend = f"free some space, or lower {ENV_PREFIX}CACHE_BYTES" if variable == "CACHE_DIR" else "free some space"
        return warning(check, f"{found}, and up to {needed / 2**30:.1f} GiB may be written", mend)
    return ok(check, found)
