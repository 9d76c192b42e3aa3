"""A process that parses big bodies, because parsing holds the interpreter lock, even in a thread."""

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from parrotserve.errors import GetTimeout, ServiceUnavailable
from parrotserve.sandbox.frames import read_frame, write_frame
from parrotserve.server.json_bodies import Malformed, Parsed, TooMany

PARSE_SECONDS = 30.0
"""If a body takes longer, it is refused and the process is killed."""


class JsonProcess:
    """Parses one body at a time. The process is started for the first one, and restarted if it has ended."""

    def __init__(self, *, most_values: int) -> None:
        self._command = (sys.executable, "-I", "-m", "parrotserve.server.json_child", str(most_values))
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._closed = False
        # A single thread of its own, so that bodies are parsed in turn and take no thread from other work.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")

    async def parse(self, body: Sequence[bytes]) -> Parsed | Malformed | TooMany:
        """See `json_bodies.parse`; the body is in parts.

        Raises `GetTimeout`, and `ServiceUnavailable` if the process died or the service is shutting down.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._parse, body)

    def close(self) -> None:
        """End the process. Calls of `parse` that wait for it raise an error."""
        with self._starting:  # else `shutdown` would wait for a process that is just being started
            self._closed = True
            if self._process is not None:
                self._process.kill()
        self._thread.shutdown(cancel_futures=True)
        self._end()

    def _parse(self, body: Sequence[bytes]) -> Parsed | Malformed | TooMany:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(PARSE_SECONDS, process.kill)
        late.start()
        try:
            write_frame(process.stdin, *body)
            answer = read_frame(process.stdout)
        except OSError:
            answer = None
        finally:
            timed_out = not late.is_alive()
            late.cancel()
        if answer is None:
            self._end()
            if timed_out:
                raise GetTimeout(f"The body could not be parsed within {PARSE_SECONDS:g} seconds; send it in parts.")
            raise ServiceUnavailable("The process that parses big bodies ended; send the body again, or in parts.")
        return cast("Parsed | Malformed | TooMany", pickle.loads(answer))

    def _running(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._closed:
                raise ServiceUnavailable("The service is ending; send the body again once it is back.")
            if self._process is None or self._process.poll() is not None:
                self._end()
                # Isolated (-I), so that neither the environment nor the current folder changes what it imports. In a
                # session of its own, so that a terminal's Ctrl-C reaches the service alone, which then ends it.
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=os.path.sep,
                    start_new_session=True,
                )
            return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(OSError), process:  # closes its pipes and waits for it
                pass
