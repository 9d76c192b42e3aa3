"""File descriptors: each connection takes one, and a service that has none left cannot answer anybody."""

import asyncio
import contextlib
import errno
import logging
from typing import Any

log = logging.getLogger(__name__)

_NONE_LEFT = (errno.EMFILE, errno.ENFILE)
_OWN = 256
"""Descriptors reserved for engines, stores, the sandbox and connections that are about to be refused."""
_SAY_SECONDS = 60.0
"""Time between two log lines about a shortage: asyncio reports every failed accept, many times a second."""


def raise_limit() -> None:
    """Raise the limit of descriptors from the lower one that shells set to the highest that the system allows."""
    try:
        import resource
    except ImportError:  # on Windows, which has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems report a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int | None:
    """Most connections for which there are descriptors, beside those that the service itself needs; None if unlimited.

    More are refused, except for health checks. Without the reserve, a service out of descriptors could not even refuse.
    """
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(soft // 2, soft - _OWN)


def most_with_health_checks(connections: int | None) -> int | None:
    """Most connections that are read at all: more than `connections`, so that health checks can be told from others."""
    return None if connections is None else connections + min(_OWN // 2, connections // 2)


class ShortageHandler:
    """An exception handler for event loops that logs a shortage at most once a minute, and all else as usual."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NONE_LEFT:
            loop.default_exception_handler(context)
        elif loop.time() >= self._quiet_until:
            self._quiet_until = loop.time() + _SAY_SECONDS
            log.error("no file descriptors left for more connections (ulimit -n): new ones wait until others end")
