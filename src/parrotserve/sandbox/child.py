"""The inside of a child process: one job after another from standard input, results on standard output.

It has no environment and no files. Memory is limited by the kernel, and time by the parent; should the parent be gone,
the kernel limits processor time as well. Whatever a job does to the process, the parent ends it if it does not answer.
"""

import contextlib
import json
import os
import sys
from typing import Any

from parrotserve.errors import NativeCallFailed
from parrotserve.processes import heed_the_service_alone
from parrotserve.sandbox.frames import read_parts, write_frame
from parrotserve.starlark_functions import define

_OUT_OF_MEMORY = {"memory": True}
_GRACE_SECONDS = 2
"""How much more processor time than wall-clock time the kernel lets a job take."""


def main() -> None:
    """Serve until standard input ends."""
    heed_the_service_alone()
    limits = json.loads(sys.argv[1])
    _limit(memory=limits["memory"])
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    write_frame(sink, b"{}")
    while (body := read_parts(source)) is not None:
        try:
            job = json.loads(body)
            del body  # a job may use whatever memory is left
            _limit_processor(job["seconds"])
            answer = _run(job, limits["output"])
            written = json.dumps(answer).encode()
        except MemoryError:
            answer, written = _OUT_OF_MEMORY, b'{"memory": true}'
        write_frame(sink, written)
        if answer is _OUT_OF_MEMORY:
            os._exit(1)  # the interpreter may be left in any state


def _run(job: dict[str, Any], longest: int) -> dict[str, Any]:
    try:
        call = define(job["source"], job["name"], file=job["file"], line=job["line"])
        value = call(job["arguments"])
    except NativeCallFailed as error:
        return {"error": str(error)}
    except BaseException as error:
        # Starlark's interpreter panics if it cannot allocate; the exception for that is no `Exception`.
        if isinstance(error, MemoryError) or "memory" in str(error):
            return _OUT_OF_MEMORY
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    if value is None:
        return {"error": "it returned nothing; return the text"}
    if len(value.encode()) > longest:
        return {"error": f"its result is longer than {longest:,} bytes"}
    return {"value": value}


def _limit(*, memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; time is bounded there all the same
        return
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))


def _limit_processor(seconds: float) -> None:
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(OSError, ValueError, OverflowError):  # OverflowError: too long for a limit
        most = int(used.ru_utime + used.ru_stime + seconds) + _GRACE_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
