"""Memory, processors and disk as files of the kernel tell them."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from nnunetlike.core import resources
from nnunetlike.core.resources import (
    available_cores,
    free_memory,
    may_have_gpu,
    process_memory,
    shared_memory,
    total_memory,
)

GIB = 2**30


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def machine(gib: int) -> dict[str, object]:
    return {"proc/meminfo": f"MemTotal: {99 * 2**20} kB\nMemAvailable:   {gib * 2**20} kB"}


def test_without_control_groups_the_machine_decides(tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, machine(7))) == 7 * GIB


def test_a_system_that_does_not_tell_gives_none(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
    assert process_memory(1, tmp_path) is None
    assert shared_memory(tmp_path) is None


def test_cgroup_v2_leaves_its_limit_without_usage_but_with_cached_files(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/job"
    write(tmp_path, machine(50))
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job",
            f"{group}/memory.max": 8 * GIB,
            f"{group}/memory.current": 5 * GIB,
            f"{group}/memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 3",
        },
    )
    assert free_memory(tmp_path) == 4 * GIB
    assert total_memory(tmp_path) == 8 * GIB


def test_without_control_groups_all_is_what_the_machine_has(tmp_path: Path) -> None:
    assert total_memory(tmp_path) is None
    assert total_memory(write(tmp_path, machine(7))) == 99 * GIB


def test_a_group_without_limit_inherits_that_of_the_group_around_it(tmp_path: Path) -> None:
    write(tmp_path, machine(50))
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slice/job",
            "sys/fs/cgroup/slice/job/memory.max": "max",
            "sys/fs/cgroup/slice/job/memory.current": GIB,
            "sys/fs/cgroup/slice/memory.max": 3 * GIB,
            "sys/fs/cgroup/slice/memory.current": GIB,
        },
    )
    assert free_memory(tmp_path) == 2 * GIB


@pytest.mark.parametrize("seen_as", ["docker/0123", ""])
def test_cgroup_v1_counts_inside_and_outside_a_container(tmp_path: Path, seen_as: str) -> None:
    group = "sys/fs/cgroup/memory"
    write(tmp_path, machine(50))
    write(
        tmp_path,
        {
            "proc/self/cgroup": f"9:name=systemd:/\n4:memory,hugetlb:/{seen_as}\n0::/",
            f"{group}/memory.limit_in_bytes": 6 * GIB,
            f"{group}/memory.usage_in_bytes": 2 * GIB,
            f"{group}/memory.stat": "total_inactive_file 0",
        },
    )
    assert free_memory(tmp_path) == 4 * GIB


def test_cgroup_v1_without_limit_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path, machine(5))
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 9,
        },
    )
    assert free_memory(tmp_path) == 5 * GIB


def test_ulimit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"proc/self/status": f"VmSize:\t{2**20} kB"})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 * GIB, 3 * GIB))
    assert free_memory(tmp_path) == 2 * GIB


def test_affinity_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5, 7})
    assert available_cores(tmp_path) == 4


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, 3),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 4),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": 50000,
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000}, 1),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000}, 4),
    ],
)  # fmt: skip
def test_the_quota_of_a_control_group_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, object], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    write(tmp_path, {"proc/self/cgroup": "1:cpu,cpuacct:/\n0::/", **files})
    assert available_cores(tmp_path) == cores


def test_a_process_has_memory_now_and_a_peak() -> None:
    found = process_memory(os.getpid())
    assert found is None or found.peak >= found.now > 2**20


def test_disk_is_known_for_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    assert resources.disk_space(tmp_path / "a" / "b").total > 0


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (2**26, "64.0 MiB"), (5.25 * GIB, "5.2 GiB")]
)
def test_sizes_are_told_in_words(size: float, words: str) -> None:
    assert resources.in_words(size) == words


@pytest.mark.skipif(sys.platform != "linux", reason="devices are files on Linux")
@pytest.mark.parametrize("device", [None, "dev/nvidia0", "dev/kfd", "dev/dxg"])
def test_a_gpu_may_be_there_where_a_driver_shows_a_device(
    tmp_path: Path, device: str | None
) -> None:
    if device is not None:
        (tmp_path / device).parent.mkdir()
        (tmp_path / device).touch()
    assert may_have_gpu(tmp_path) == (device is not None)
