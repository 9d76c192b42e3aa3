"""How much memory there is, and how much of it an engine takes for KV."""

import contextlib
import os
from pathlib import Path

from parrotserve.settings import show_size

_MIB = 1 << 20
_MOST_BY_DEFAULT = 1024 * _MIB
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def default_kv_bytes() -> int:
    """An eighth of the memory that this process may use, at most 1 GiB."""
    return min(_MOST_BY_DEFAULT, usable_memory() // 8)


def usable_memory() -> int:
    """The machine's memory in bytes, or what a control group leaves this process of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file outside of Linux, and "max" where there is no limit
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return memory


def kv_fault(kv_memory: int | None) -> str | None:
    """Why a KV cache of so many bytes (None: the default) cannot be had; None where it can be."""
    usable = usable_memory()
    if kv_memory is None or kv_memory <= usable:
        return None
    return f"kv_memory = {show_size(kv_memory)} does not fit the {usable / 1e9:.1f} GB of memory here"
