"""Cores and memory that a process may use: control groups of both versions, as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from generator.spec import machine


def groups(home: Path, of_process: str, **files: str) -> dict[str, Path]:
    """A tree of control groups: files by their path, and the groups of the process."""
    for path, text in files.items():
        file = home / "cgroup" / path.replace("__", "/").replace("_max", ".max").replace("cfs_", "cpu.cfs_")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (home / "of-process").write_text(of_process, errors="surrogateescape")
    return {"groups": home / "cgroup", "of_process": home / "of-process"}


def test_no_group_and_no_limit(tmp_path: Path) -> None:
    assert machine.core_quota(tmp_path / "none", tmp_path / "none") == 2**20
    assert machine.core_quota(**groups(tmp_path, "0::/\n", cpu_max="max 100000")) == 2**20
    tree = {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}
    assert machine.core_quota(**groups(tmp_path, "1:cpu:/\n", **tree)) == 2**20


def test_a_limit_of_version_2(tmp_path: Path) -> None:
    assert machine.core_quota(**groups(tmp_path, "0::/\n", cpu_max="150000 100000")) == 1.5


def test_the_least_limit_on_the_way_counts(tmp_path: Path) -> None:
    tree = {"cpu_max": "max 100000", "pod__cpu_max": "300000 100000", "pod__box__cpu_max": "max 100000"}
    assert machine.core_quota(**groups(tmp_path, "0::/pod/box\n", **tree)) == 3.0


def test_a_path_of_the_machine_that_a_container_does_not_see(tmp_path: Path) -> None:
    assert machine.core_quota(**groups(tmp_path, "0::/kubepods/pod1/box\n", cpu_max="200000 100000")) == 2.0


def test_a_limit_of_version_1(tmp_path: Path) -> None:
    tree = {"cpu,cpuacct__pod__cfs_quota_us": "50000", "cpu,cpuacct__pod__cfs_period_us": "100000"}
    of_process = "4:memory:/pod\n2:cpu,cpuacct:/pod\n3:cpuset:/\n"
    assert machine.core_quota(**groups(tmp_path, of_process, **tree)) == 0.5


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert machine.core_quota(**groups(tmp_path, "0::/\n", cpu_max="odd")) == 2**20
    assert machine.core_quota(**groups(tmp_path, "0::/\n", cpu_max="1 0")) == 2**20


@pytest.mark.parametrize(("quota", "expected"), [(0.2, 1), (1.5, 2), (3.0, 3), (2.0**20, 8)])
def test_a_part_of_a_core_is_one(monkeypatch: pytest.MonkeyPatch, quota: float, expected: int) -> None:
    monkeypatch.setattr(machine, "core_quota", lambda: quota)
    monkeypatch.setattr(machine, "allowed_cores", lambda: 8)
    assert machine.usable_cores() == expected


def test_the_affinity_of_this_process_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def memory_of(home: Path, of_process: str, available: int | None = None, **files: str) -> int:
    """``available``: kilobytes of the machine. ``files``: of control groups, without the first ``memory.``."""
    memory = home / "meminfo"
    memory.write_text("" if available is None else f"MemTotal:       99 kB\nMemAvailable:    {available} kB\n")
    for path, text in files.items():
        group, _, name = f"cgroup/{path}".rpartition("__") if "__" in path else ("cgroup", "", path)
        file = home / group.replace("__", "/") / f"memory.{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (home / "of-process").write_text(of_process, errors="surrogateescape")
    return machine.available_memory(home / "cgroup", home / "of-process", memory)


def test_without_limits_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    unlimited = {"max": "max", "current": "7", "stat": "active_file 1"}
    assert memory_of(tmp_path, "0::/\n", 4, **unlimited) == 4096
    assert memory_of(tmp_path, "0::/none\n", 4) == 4096
    assert memory_of(tmp_path, "0::/none\n") == 2**60


def test_a_limit_of_memory_counts_with_what_can_be_given_back(tmp_path: Path) -> None:
    tree = {"max": "10000", "current": "9000", "stat": "anon 1000\nactive_file 3000\ninactive_file 500\nshmem 2000"}
    assert memory_of(tmp_path, "0::/\n", 100, **tree) == 10000 - (9000 - 3500)
    assert memory_of(tmp_path, "0::/\n", 4, **tree) == 4096
    assert memory_of(tmp_path, "0::/\n", 100, **tree | {"current": "20000"}) == 0


def test_the_least_room_on_the_way_counts(tmp_path: Path) -> None:
    tree = {
        "max": "max",
        "current": "1",
        "stat": "anon 1",
        "pod__max": "7000",
        "pod__current": "2000",
        "pod__stat": "anon 1",
    }
    box = {"pod__box__max": "6000", "pod__box__current": "500", "pod__box__stat": "anon 1"}
    assert memory_of(tmp_path, "0::/pod/box\n", 100, **tree, **box) == 5000


def test_a_limit_of_memory_of_version_1(tmp_path: Path) -> None:
    stat = "inactive_file 1\ntotal_active_file 100\ntotal_inactive_file 200"
    tree = {"limit_in_bytes": "5000", "usage_in_bytes": "1300", "stat": stat}
    files = {f"memory__pod__{name}": text for name, text in tree.items()}
    no_limit = {
        "memory__limit_in_bytes": "9223372036854771712",
        "memory__usage_in_bytes": "1",
        "memory__stat": "anon 1",
    }
    of_process = "4:memory:/pod\n2:cpu:/other\n0::/\n"
    assert memory_of(tmp_path, of_process, 100, **files, **no_limit) == 4000


def test_memory_that_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert memory_of(tmp_path, "0::/\n", 4, max="odd", current="1", stat="anon 1") == 4096
    assert memory_of(tmp_path, f"0::/{'x' * 300}\n", 4, max="max") == 4096


def test_a_limit_counts_where_its_use_cannot_be_read(tmp_path: Path) -> None:
    assert memory_of(tmp_path, "0::/\n", 4, max="10") == 10
    assert memory_of(tmp_path, "0::/\n", 4, max="10", current="7") == 3
    assert memory_of(tmp_path, "0::/\n", 4, max="10", current="7", stat="odd") == 3


def test_odd_lines_of_groups_are_passed_over(tmp_path: Path) -> None:
    of_process = "\nodd\n1:name=caf\udce9:/caf\udce9\n0::/\n\n"
    assert memory_of(tmp_path, of_process, 4, max="10", current="7") == 3
    assert machine.core_quota(**groups(tmp_path, of_process, cpu_max="200000 100000")) == 2.0


def test_groups_of_version_2_beside_those_of_version_1(tmp_path: Path) -> None:
    assert memory_of(tmp_path, "0::/pod\n", 4, unified__pod__max="10", unified__pod__current="7") == 3
    assert machine.core_quota(**groups(tmp_path, "0::/pod\n", unified__pod__cpu_max="200000 100000")) == 2.0


def test_controllers_may_stand_in_another_order(tmp_path: Path) -> None:
    tree = {"cpu__pod__cfs_quota_us": "50000", "cpu__pod__cfs_period_us": "100000"}
    assert machine.core_quota(**groups(tmp_path, "4:cpuacct,cpu:/pod\n", **tree)) == 0.5


def test_what_the_system_says() -> None:
    assert machine.available_memory() > 10**6
