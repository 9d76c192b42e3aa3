"""One tenant does its worst, and another's stream goes on as before."""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hostile_client
import httpx
import psutil
import pytest
from hostile_client import EXPECTED, MIB
from httpx_sse import aconnect_sse

from parrotserve.ids import new_id
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

STEP_SECONDS = 0.02
SERVICE = f"""
import asyncio, sys
from functools import partial
from pathlib import Path
from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.runtime.catalog import fake_model
from parrotserve.server import run
make = partial(FakeEngine, step_seconds={STEP_SECONDS}, script=lambda prompt: "word " * 1000)
config = ServiceConfig(models=("fake",), port=0, data=Path(sys.argv[1]))
serving = run.serve_until_stopped(config, announce=partial(print, flush=True), load=lambda *_: fake_model(make))
asyncio.run(serving)
"""


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


async def gaps(client: httpx.AsyncClient, *, stop: asyncio.Event) -> AsyncIterator[float]:
    """Seconds between the events of streams, one stream after another."""
    while not stop.is_set():
        out = new_id("v")
        segments = [
            {"kind": "text", "text": "tell"},
            {"kind": "output", "variable": out, "sampling": {"max_tokens": 4000}},
        ]
        body = {"session": new_id("s"), "variables": [{"id": out}], "wait": [{"variable": out, "stream": True}],
                "requests": [{"id": new_id("r"), "segments": segments}]}  # fmt: skip
        async with aconnect_sse(client, "POST", "/v1/submit", json=body) as source:
            before = None
            async for event in source.aiter_sse():
                now = time.perf_counter()
                if event.event == "delta":
                    if before is not None:
                        yield now - before
                    before = now
                if stop.is_set():
                    break


async def measured(client: httpx.AsyncClient, until: "asyncio.Future[None] | asyncio.Task[None]") -> list[float]:
    stop = asyncio.Event()
    until.add_done_callback(lambda _: stop.set())
    return [gap async for gap in gaps(client, stop=stop)]


async def highest(process: psutil.Process) -> int:
    """The most memory that a process holds, looked at until cancelled."""
    most = 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.1)
    return most


def percentile_95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_another_tenants_stream_goes_on_under_attack(tmp_path: Path):
    with contextlib.closing(TenantStore(tmp_path)) as store:
        keys = {}
        for tenant in ("victim", "attacker"):
            store.create_tenant(tenant, Limits())
            keys[tenant] = store.create_key(tenant)[1]
    with running("-c", SERVICE, str(tmp_path)) as service:
        assert service.stdout is not None
        url = "http://" + service.stdout.readline().partition("http://")[2].split()[0]
        watched = psutil.Process(service.pid)
        headers = {"Authorization": f"Bearer {keys['victim']}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            quiet = await measured(client, asyncio.ensure_future(asyncio.sleep(10)))
            before = watched.memory_info().rss
            memory = asyncio.ensure_future(highest(watched))
            with running(hostile_client.__file__, url.rpartition(":")[2], keys["attacker"]) as attack:
                assert attack.stdout is not None
                answers: dict[str, int] = {}

                async def ended() -> None:
                    answers.update(json.loads(await asyncio.to_thread(attack.stdout.readline)))

                loud = await measured(client, asyncio.ensure_future(ended()))
            memory.cancel()
            grown = await memory - before
    ratio = percentile_95(loud) / percentile_95(quiet)
    print(f"answers {answers}; p95 of gaps {1000 * percentile_95(quiet):.1f} -> {1000 * percentile_95(loud):.1f} ms")
    print(f"({ratio:.2f}x), longest {1000 * max(loud):.0f} ms of {len(loud)}; memory +{grown / MIB:.0f} MiB")
    assert not [status for status in answers if status.startswith("5")]
    assert sum(answers.values()) == EXPECTED
    assert ratio <= 1.5
    assert max(loud) <= 0.25
    assert grown <= 512 * MIB
