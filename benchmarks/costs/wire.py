"""The runtime, and HTTP: Parrot over engines without cost beside a bare FastAPI echo of the same body."""

import argparse
import asyncio
import contextlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from costs.client import Client
from costs.free import GREEDY, PROMPT, load_free
from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport
from parrotserve.ids import SessionId, new_id
from parrotserve.protocol import OutputSegment, RequestSpec, Submit, TextSegment, VariableSpec, WaitSpec
from parrotserve.sdk.transport import Transport

IN_FLIGHT = 64
PATHS = {"parrot": "/v1/submit", "no journal": "/v1/submit", "echo": "/echo"}
"""What each server is asked for: Parrot as it is, Parrot that keeps sessions in memory only, and the echo."""


def body() -> Submit:
    """One request, waited for."""
    output = new_id("v")
    segments = (TextSegment(text=PROMPT), OutputSegment(variable=output, sampling=GREEDY))
    return Submit(
        session=new_id("s"),
        variables=(VariableSpec(id=output),),
        requests=(RequestSpec(id=new_id("r"), chat=False, segments=segments),),
        wait=(WaitSpec(variable=output),),
    )


async def runtime_alone(count: int) -> float:
    """Requests a second through the service in this process, so many in flight."""
    transport: Transport = EmbeddedTransport(ServiceConfig(models=("fake",)), load=load_free)
    await transport.open()
    try:

        async def one() -> None:
            request = body()
            async for _ in transport.submit(request):
                pass
            await transport.end_session(SessionId(request.session))

        return await _rate(one, count)
    finally:
        await transport.close()


async def _rate(one: Any, count: int) -> float:
    """Calls a second, `IN_FLIGHT` at once."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


class Wire:
    """One of the servers, and how it is asked."""

    def __init__(self, url: str, path: str) -> None:
        self._client = Client(url, path)

    async def ask(self) -> float:
        """Seconds of one exchange, its whole answer read."""
        content = body().model_dump_json().encode()
        began = time.perf_counter()
        await self._client.post(content)
        return time.perf_counter() - began

    async def at_rate(self, rate: float, seconds: float, seed: str) -> list[float]:
        """Exchanges that begin at random moments, whatever became of those before."""
        chance = random.Random(seed)
        loop = asyncio.get_running_loop()
        moment, began = 0.0, loop.time()
        tasks: list[asyncio.Task[float]] = []
        while (moment := moment + chance.expovariate(rate)) < seconds:
            await asyncio.sleep(began + moment - loop.time())
            tasks.append(asyncio.create_task(self.ask()))
        return list(await asyncio.gather(*tasks))

    async def rate(self, count: int) -> float:
        """Exchanges a second, `IN_FLIGHT` at once."""
        return await _rate(self.ask, count)

    async def close(self) -> None:
        await self._client.close()


@contextlib.contextmanager
def child(role: str) -> Iterator[str]:
    """The benchmark as a server of its own; its URL."""
    with subprocess.Popen([sys.executable, sys.argv[0], "--role", role], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.search(r"(http://\S+)", line):
                    yield match[1]
                    return
            sys.exit(f"The {role} did not come up.")
        finally:
            process.terminate()


def serve(role: str) -> None:
    """What a child runs: Parrot over free engines, with or without its journal, or an echo that validates the same
    body."""
    from parrotserve.server.run import open_socket, serve_until_stopped

    if role != "echo":
        with contextlib.closing(open_socket("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with tempfile.TemporaryDirectory() as folder:
            journal = role == "parrot"
            config = ServiceConfig(models=("fake",), port=port, keys="never", data=Path(folder), journal=journal)
            asyncio.run(serve_until_stopped(config, announce=lambda line: print(line, flush=True), load=load_free))
        return
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/echo")
    async def echo(body: Submit) -> Submit:
        return body

    with contextlib.closing(open_socket("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener]))


@contextlib.asynccontextmanager
async def servers() -> AsyncIterator[dict[str, Wire]]:
    """The servers, up and warm."""
    with contextlib.ExitStack() as running:
        wires = {role: Wire(running.enter_context(child(role)), path) for role, path in PATHS.items()}
        for wire in wires.values():
            await wire.rate(IN_FLIGHT)
        yield wires
        for wire in wires.values():
            await wire.close()


async def over_http(options: argparse.Namespace) -> dict[str, list[int]]:
    """Exchanges a second with each, in turns."""
    async with servers() as wires:
        rates: dict[str, list[int]] = {name: [] for name in wires}
        for _ in range(options.rounds):
            for name, wire in wires.items():
                rates[name].append(round(await wire.rate(options.count)))
    return rates


async def added(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of an exchange with each, in turns: percentiles of every round, the same moments for all."""
    async with servers() as wires:
        found: dict[str, dict[str, list[float]]] = {name: {"p50": [], "p99": []} for name in wires}
        for number in range(options.rounds):
            for name, wire in wires.items():
                times = sorted(await wire.at_rate(options.rate, options.seconds, f"{options.seed} {number}"))
                for percent in (50, 99):
                    found[name][f"p{percent}"].append(round(_quantile(times, percent) * 1000, 3))
    return found


def _quantile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
