"""`parrot serve` in a process of its own, for the duration of a measurement."""

import asyncio
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence

from parrotserve.errors import EngineFailed

_STOP_SECONDS = 15.0
_KEPT = {"PARROT_CACHE", "PARROT_INDEX_URL"}
"""Environment variables that say where models are, not how they are served."""


@contextlib.asynccontextmanager
async def served(options: Sequence[str] = ()) -> AsyncGenerator[str, None]:
    """Run a service with these options on a free port, and give its URL. Raises `EngineFailed` with the service's
    output if it does not start.

    It uses nothing of the user's: no settings from the environment or a file, no keys, and no data of other runs. So
    these options and the defaults are its only settings.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = ("--port", "0", "--keys", "never", "--data", folder)
        command = [sys.executable, "-m", "parrotserve.cli.main", "serve", *own, *options]
        async with _running(command) as url:
            yield url


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without Parrot's settings, and with an empty file of settings."""
    kept = {name: text for name, text in environment.items() if not name.startswith("PARROT_") or name in _KEPT}
    return {**kept, "PARROT_CONFIG": os.devnull}


@contextlib.asynccontextmanager
async def _running(command: Sequence[str]) -> AsyncGenerator[str, None]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=own_environment(os.environ),
    )
    assert process.stderr is not None
    reader = process.stderr
    draining: asyncio.Task[None] | None = None
    try:
        url = await _url(reader)
        draining = asyncio.create_task(_drain(reader))
        yield url
    finally:
        await _stop(process)
        if draining is not None:
            await draining


async def _url(lines: asyncio.StreamReader) -> str:
    said: list[str] = []
    async for raw in lines:
        line = raw.decode(errors="replace")
        said.append(line)
        if match := re.search(r"at (http://\S+)", line):
            return match[1]
    raise EngineFailed("".join(said).strip() or "The service did not come up.")


async def _drain(lines: asyncio.StreamReader) -> None:
    """Reads and discards the service's output, so that it does not block."""
    async for _ in lines:
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
