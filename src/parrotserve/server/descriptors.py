"""File descriptors: each connection takes one, and a service that has none left answers nobody."""

import asyncio
import contextlib
import errno
import logging
from typing import Any

log = logging.getLogger(__name__)

_NONE_LEFT = (errno.EMFILE, errno.ENFILE)
_OWN = 256
"""Descriptors that are left for engines, stores, the sandbox and connections that wait to be refused."""
_SAY_SECONDS = 60.0
"""Between two lines about it: asyncio tells of every connection that it could not take, many times a second."""


def raise_limit() -> None:
    """Take as many as the system lets this process have, instead of the fewer that shells begin with."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int | None:
    """How many connections there are descriptors for, beside what a service itself has open; None: as many as come.

    Whoever comes beyond is refused, health checks aside, which a service that has none left cannot do any more.
    """
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(soft // 2, soft - _OWN)


def most_with_health_checks(connections: int | None) -> int | None:
    """How many connections may be read at all, so that health checks are found among those that are refused."""
    return None if connections is None else connections + min(_OWN // 2, connections // 2)


class ShortageHandler:
    """An event loop's exception handler that tells of a shortage once in a while, and of all else as usual."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NONE_LEFT:
            loop.default_exception_handler(context)
        elif loop.time() >= self._quiet_until:
            self._quiet_until = loop.time() + _SAY_SECONDS
            log.error("no file descriptors left for more connections (ulimit -n): new ones wait until others end")
