"""Limits that Linux's control groups set to a process, such as one in a container or in a service of systemd.

Both versions are supported: https://docs.kernel.org/admin-guide/cgroup-v2.html and
https://docs.kernel.org/admin-guide/cgroup-v1.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_SECOND_VERSION = ""
"""The controller name of version 2, which has one hierarchy for all controllers: none."""


def memory_limit() -> int | None:
    """Bytes of memory that this process and others in its groups may use together; None if they are not limited."""
    texts = [*_texts(_SECOND_VERSION, "memory.max"), *_texts("memory", "memory.limit_in_bytes")]
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def processor_quota() -> float | None:
    """Number of processors whose time they may use together (may be a fraction); None if it is not limited."""
    second = [text.split() for text in _texts(_SECOND_VERSION, "cpu.max")]
    first = zip(_texts("cpu", "cpu.cfs_quota_us"), _texts("cpu", "cpu.cfs_period_us"), strict=False)
    pairs = (*second, *first)
    return min((int(quota) / int(period) for quota, period in pairs if quota.isdecimal()), default=None)


def _texts(controller: str, file: str) -> Iterator[str]:
    """The contents of a file in each of the groups that this process is in, and in the groups around them."""
    for group in _groups(controller):
        with contextlib.suppress(OSError):  # a container sees its own group as the root, whatever its name is outside
            yield (group / file).read_text().strip()


def _groups(controller: str) -> Iterator[Path]:
    top = _ROOT / controller
    with contextlib.suppress(OSError):
        for line in _OWN.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                group = top / path.lstrip("/")
                yield from (one for one in (group, *group.parents) if one.is_relative_to(top))
