"""Limits of Linux's control groups, of both versions, as containers and services of systemd have them."""

from pathlib import Path

import pytest

from parrotserve import control_groups
from parrotserve.control_groups import memory_limit, processor_quota
from parrotserve.engines.native.memory import usable_memory

NO_LIMIT = str((1 << 63) - 4096)
"""As the first version has it."""


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path / "root")
    monkeypatch.setattr(control_groups, "_OWN", tmp_path / "own")
    return tmp_path / "root"


def write(root: Path, own: str, files: dict[str, str]) -> None:
    """`own`: the groups of this process."""
    (root.parent / "own").write_text(own)
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")


def test_a_container_has_the_limits_of_what_it_sees_as_the_root(root: Path):
    write(root, "0::/\n", {"memory.max": str(64 << 20), "cpu.max": "150000 100000"})
    assert (memory_limit(), processor_quota()) == (64 << 20, 1.5)
    assert usable_memory() == 64 << 20


def test_a_service_of_systemd_has_its_own_limits_and_those_around_it(root: Path):
    write(
        root,
        "0::/system.slice/parrot.service\n",
        {
            "system.slice/parrot.service/memory.max": str(128 << 20),
            "system.slice/memory.max": str(96 << 20),
            "system.slice/parrot.service/cpu.max": "50000 100000",
            "system.slice/cpu.max": "max 100000",
            "system.slice/other.service/memory.max": "1",
        },
    )
    assert (memory_limit(), processor_quota()) == (96 << 20, 0.5)


def test_the_first_version_has_a_tree_for_each_controller(root: Path):
    write(
        root,
        "4:memory:/docker/abc\n2:cpuacct,cpu:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n",
        {
            "memory/memory.limit_in_bytes": NO_LIMIT,
            "memory/docker/abc/memory.limit_in_bytes": str(256 << 20),
            "cpu/docker/abc/cpu.cfs_quota_us": "200000",
            "cpu/docker/abc/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert (memory_limit(), processor_quota()) == (256 << 20, 2.0)


def test_a_container_of_the_first_version_does_not_see_its_own_name(root: Path):
    write(root, "4:memory:/docker/abc\n", {"memory/memory.limit_in_bytes": str(256 << 20)})
    assert (memory_limit(), processor_quota()) == (256 << 20, None)


@pytest.mark.parametrize("files", [{}, {"memory.max": "max", "cpu.max": "max 100000"}])
def test_elsewhere_there_is_no_limit(root: Path, files: dict[str, str]):
    assert (memory_limit(), processor_quota()) == (None, None)
    write(root, "0::/\n", files)
    assert (memory_limit(), processor_quota()) == (None, None)
    assert usable_memory() > 256 << 20
