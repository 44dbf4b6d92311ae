"""What this process may use of the machine: cores and memory, by its affinity and by its control groups.

The standard library counts all cores of the machine, and ``/proc/meminfo`` all of its memory. In a container with
limits, a thread for each of sixty-four cores is stopped by the kernel for most of the time, and a process that takes
half of the memory of the machine is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

_GROUPS, _OF_PROCESS, _MEMORY = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")
_NO_LIMIT = 2**60  # bytes: version 1 writes "no limit" as a number of pages that no machine has


def usable_cores() -> int:
    """Number of cores that this process may use, at least 1; a part of a core counts as one."""
    return min(allowed_cores(), ceil(core_quota()))


def allowed_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_quota(groups: Path = _GROUPS, of_process: Path = _OF_PROCESS) -> float:
    """Processor seconds a second that the control groups of this process allow; 2**20 if there is no limit."""
    quotas = (_quota(group) for group in _control_groups("cpu", groups, of_process))
    return min((quota for quota in quotas if quota is not None), default=2.0**20)


def available_memory(groups: Path = _GROUPS, of_process: Path = _OF_PROCESS, memory: Path = _MEMORY) -> int:
    """Bytes that this process can still take without swapping: of the machine, and within the limits of its control
    groups, where pages of files can be given back; 2**60 if the system reports neither."""
    rooms = [room for group in _control_groups("memory", groups, of_process) if (room := _room(group)) is not None]
    return max(0, min([_of_machine(memory), *rooms]))


def _of_machine(memory: Path) -> int:
    try:
        lines = memory.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return _NO_LIMIT


def _control_groups(controller: str, groups: Path, of_process: Path) -> Iterator[Path]:
    """The groups of a process that may limit it, from its own to the root."""
    try:
        lines = of_process.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not path or (controllers and controller not in controllers.split(",")):
            continue
        # Version 2 has one tree, which may be mounted beside those of version 1; version 1 has one for each controller,
        # or for several, whose names may stand in another order. In a container the path may be that of the machine,
        # while its own group is the root of what is mounted: all that exist on the way count.
        for base in (groups / controllers, groups / controller) if controllers else (groups, groups / "unified"):
            for group in (base / path.lstrip("/"), *(base / path.lstrip("/")).parents):
                yield group
                if group == base:
                    break


def _quota(group: Path) -> float | None:
    """Processor seconds a second of one group; ``None`` if it has no limit."""
    try:
        if (group / "cpu.max").exists():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return float(allowed) / float(period) if allowed not in ("max", "-1") and float(allowed) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _room(group: Path) -> int | None:
    """Bytes that one group can still take; ``None`` if it has no limit."""
    limit, usage, prefix = _number(group / "memory.max"), "memory.current", ""
    if limit is None:
        limit, usage = _number(group / "memory.limit_in_bytes"), "memory.usage_in_bytes"
        prefix = "total_"  # with the groups below it, as its use
    if limit is None or limit >= _NO_LIMIT:
        return None
    try:
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = sum(int(facts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    except (OSError, ValueError):
        files = 0
    return limit - max(0, (_number(group / usage) or 0) - files)


def _number(file: Path) -> int | None:
    """What a file of a group says; ``None`` if that is no number (``max``), or the file cannot be read."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
