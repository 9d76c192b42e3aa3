"""One child process of the sandbox, seen from the service: started, given jobs one at a time, and ended."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from typing import Any

from parrotserve.errors import NativeCallFailed
from parrotserve.processes import signal_name
from parrotserve.sandbox.frames import HEADER, frame
from parrotserve.sandbox.limits import Job, Limits

_START_SECONDS = 30.0
_EXIT_SECONDS = 5.0
"""How long a child that has closed its output may take to exit before it is killed."""
_ESCAPED = 6
"""Most bytes that JSON makes of one byte of a text."""
_SMALL = 4096
_PART = 1 << 16
"""Least number of characters sent in one frame, except for the last frame of a job."""


class Child:
    """Runs jobs, one at a time. If `run` was cancelled, or raised anything but `NativeCallFailed`, it must be ended."""

    def __init__(self, process: Process, limits: Limits) -> None:
        self._process = process
        self._limits = limits

    @classmethod
    async def start(cls, limits: Limits) -> "Child":
        """A child that is ready. Raises `NativeCallFailed` if none can be started."""
        # Isolated (-I): neither the environment nor the working directory influences what it imports.
        command = (sys.executable, "-I", "-m", "parrotserve.sandbox.child", json.dumps(asdict(limits)))
        needed = {"SYSTEMROOT": os.environ["SYSTEMROOT"]} if sys.platform == "win32" else {}
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=needed, cwd=os.path.sep, start_new_session=True
            )
        except OSError as error:
            raise NativeCallFailed(f"the service could not start its sandbox: {error}") from error
        child = cls(process, limits)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child._read()
        except (TimeoutError, EOFError) as error:
            await child.end()
            raise NativeCallFailed("the service could not start its sandbox") from error
        except BaseException:
            await child.end()
            raise
        return child

    async def run(self, job: Job) -> str:
        """A job's result. Raises `NativeCallFailed` if it has none; the child may have ended then (see `alive`)."""
        seconds = min(job.seconds or self._limits.seconds, self._limits.seconds)
        told = {"source": job.source, "name": job.name, "file": job.file, "line": job.line, "seconds": seconds}
        body = chain((json.dumps(told)[:-1], ', "arguments": '), job.arguments, ("}",))
        try:
            async with asyncio.timeout(seconds):
                answer = await self._ask(body)
        except TimeoutError as error:
            await self.end()
            raise NativeCallFailed(f"it did not return within {seconds:g} s") from error
        except (EOFError, OSError) as error:
            raise NativeCallFailed(await self._epitaph()) from error
        if "value" in answer:
            return answer["value"]
        if "memory" in answer:
            await self.end()
            raise NativeCallFailed(self._out_of_memory)
        raise NativeCallFailed(answer["error"])

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.returncode is None

    async def end(self) -> None:
        """Kill it, and wait until it has exited."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _ask(self, body: Iterable[str]) -> dict[str, Any]:
        assert self._process.stdin is not None
        for part in chain(_parts(body), (b"",)):
            self._process.stdin.write(frame(part))
            await self._process.stdin.drain()
            await asyncio.sleep(0)  # `drain` does not yield while the child reads faster than parts are made
        return await self._read()

    async def _read(self) -> dict[str, Any]:
        """The next answer. Raises `EOFError` if the child has ended, or sends more than an answer can have."""
        assert self._process.stdout is not None
        (length,) = HEADER.unpack(await self._process.stdout.readexactly(HEADER.size))
        if length > self._limits.output * _ESCAPED + _SMALL:
            raise EOFError
        return json.loads(await self._process.stdout.readexactly(length))

    async def _epitaph(self) -> str:
        # `kill` first polls whether the child still runs, and may thereby take its exit status away from asyncio, which
        # then reports 255. So a child that is exiting by itself is given time to do so.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _EXIT_SECONDS)
        if self.alive:
            await self.end()
        code = self._process.returncode or 0
        if -code == signal.SIGABRT or code == 1:  # how Rust and Python end if they cannot allocate
            return self._out_of_memory
        how = signal_name(-code) if code < 0 else f"exit code {code}"
        return f"it ended its sandbox ({how}), perhaps by nesting too deeply"

    @property
    def _out_of_memory(self) -> str:
        return f"it needs more than {self._limits.memory >> 20} MiB of memory"


def _parts(body: Iterable[str]) -> Iterator[bytes]:
    part: list[str] = []
    length = 0
    for piece in body:
        part.append(piece)
        length += len(piece)
        if length >= _PART:
            yield "".join(part).encode()
            part, length = [], 0
    if part:
        yield "".join(part).encode()
