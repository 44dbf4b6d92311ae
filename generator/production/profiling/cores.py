"""How many cores this process may use: by its affinity, and by the quota of its control group (a container's limit).

The standard library counts all cores of the machine. A process that starts a thread for each of sixty-four while its
container may use two is stopped by the kernel for most of the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

_GROUPS, _OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Number of cores that this process may use, at least 1; a part of a core counts as one."""
    return min(allowed_cores(), ceil(core_quota()))


def allowed_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_quota(groups: Path = _GROUPS, of_process: Path = _OF_PROCESS) -> float:
    """Processor seconds a second that the control groups of this process allow; 2**20 if there is no limit."""
    return min(_quotas(groups, of_process), default=2.0**20)


def _quotas(groups: Path, of_process: Path) -> Iterator[float]:
    try:
        lines = of_process.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree, version 1 one for each controller. In a container the path may be that of the
        # machine, while its own group is the root of what is mounted: all that exist on the way count.
        base = groups / controllers if controllers else groups
        for group in (base / path.lstrip("/"), *(base / path.lstrip("/")).parents):
            if (quota := _quota(group)) is not None:
                yield quota
            if group == base:
                break


def _quota(group: Path) -> float | None:
    """The quota of one group; ``None`` if it has none."""
    try:
        if (group / "cpu.max").exists():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return float(allowed) / float(period) if allowed not in ("max", "-1") and float(allowed) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
