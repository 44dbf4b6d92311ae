"""Cores that a process may use: control groups of both versions, as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from generator.production.profiling import cores


def groups(home: Path, of_process: str, **files: str) -> dict[str, Path]:
    """A tree of control groups: files by their path, and the groups of the process."""
    for path, text in files.items():
        file = home / "cgroup" / path.replace("__", "/").replace("_max", ".max").replace("cfs_", "cpu.cfs_")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (home / "of-process").write_text(of_process)
    return {"groups": home / "cgroup", "of_process": home / "of-process"}


def test_no_group_and_no_limit(tmp_path: Path) -> None:
    assert cores.core_quota(tmp_path / "none", tmp_path / "none") == 2**20
    assert cores.core_quota(**groups(tmp_path, "0::/\n", cpu_max="max 100000")) == 2**20
    assert cores.core_quota(**groups(tmp_path, "1:cpu:/\n", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")) > 1000


def test_a_limit_of_version_2(tmp_path: Path) -> None:
    assert cores.core_quota(**groups(tmp_path, "0::/\n", cpu_max="150000 100000")) == 1.5


def test_the_least_limit_on_the_way_counts(tmp_path: Path) -> None:
    tree = {"cpu_max": "max 100000", "pod__cpu_max": "300000 100000", "pod__box__cpu_max": "max 100000"}
    assert cores.core_quota(**groups(tmp_path, "0::/pod/box\n", **tree)) == 3.0


def test_a_path_of_the_machine_that_a_container_does_not_see(tmp_path: Path) -> None:
    assert cores.core_quota(**groups(tmp_path, "0::/kubepods/pod1/box\n", cpu_max="200000 100000")) == 2.0


def test_a_limit_of_version_1(tmp_path: Path) -> None:
    tree = {"cpu,cpuacct__pod__cfs_quota_us": "50000", "cpu,cpuacct__pod__cfs_period_us": "100000"}
    of_process = "4:memory:/pod\n2:cpu,cpuacct:/pod\n3:cpuset:/\n"
    assert cores.core_quota(**groups(tmp_path, of_process, **tree)) == 0.5


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert cores.core_quota(**groups(tmp_path, "0::/\n", cpu_max="odd")) == 2**20
    assert cores.core_quota(**groups(tmp_path, "0::/\n", cpu_max="1 0")) == 2**20


@pytest.mark.parametrize(("quota", "expected"), [(0.2, 1), (1.5, 2), (3.0, 3), (2.0**20, 8)])
def test_a_part_of_a_core_is_one(monkeypatch: pytest.MonkeyPatch, quota: float, expected: int) -> None:
    monkeypatch.setattr(cores, "core_quota", lambda: quota)
    monkeypatch.setattr(cores, "allowed_cores", lambda: 8)
    assert cores.usable_cores() == expected


def test_the_affinity_of_this_process_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
