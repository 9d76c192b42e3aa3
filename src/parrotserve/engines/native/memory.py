"""How much memory there is, and how much of it an engine takes for KV."""

import os

from parrotserve.control_groups import memory_limit
from parrotserve.settings import show_size

_MIB = 1 << 20
_MOST_BY_DEFAULT = 1024 * _MIB


def default_kv_bytes() -> int:
    """An eighth of the memory that this process may use, at most 1 GiB."""
    return min(_MOST_BY_DEFAULT, usable_memory() // 8)


def usable_memory() -> int:
    """The machine's memory in bytes, or what control groups leave this process of it."""
    memory, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), memory_limit()
    return memory if limit is None else min(memory, limit)


def kv_fault(kv_memory: int | None, engines: int = 1) -> str | None:
    """Why so many engines on this machine cannot have a KV cache of so many bytes (None: the default) each; None where
    they can."""
    usable, each = usable_memory(), default_kv_bytes() if kv_memory is None else kv_memory
    if each * engines <= usable:
        return None
    shown = f"{each / 1e9:.1f} GB, the default," if kv_memory is None else show_size(kv_memory)
    which = f"{shown} for each of {engines} engines" if engines > 1 else shown
    return f"kv_memory = {which} does not fit the {usable / 1e9:.1f} GB of memory here"
