"""A real server on a real socket: streams that break and resume, clients that leave, and the end of the service."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from parrotserve.config import KEY_MODES, ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.errors import DeclarationError, EngineFailed, ServiceUnavailable
from parrotserve.ids import EngineId
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.server import run
from parrotserve.server.hosts import check_reach
from parrotserve.server.run import open_socket, serve, serve_until_stopped
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

TALE = "a tale 🦘 of some length"
PROGRAM: dict[str, Any] = {
    "session": "s1",
    "lease_seconds": 0.5,
    "variables": [{"id": "tale"}],
    "requests": [
        {"id": "r1", "segments": [{"kind": "text", "text": "tell"}, {"kind": "output", "variable": "tale"}]},
    ],
}
TALE_STREAM = "/v1/sessions/s1/variables/tale/stream"


class Running:
    """A server whose engine makes a step only when told to."""

    def __init__(self, **options: Any) -> None:
        self.engines: list[FakeEngine] = []
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        config = ServiceConfig(models=("fake",), port=0, **options)
        self.task = asyncio.create_task(serve_until_stopped(config, announce=self.lines.put_nowait, load=self._load))

    def _load(self, name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        return fake_model(self._make, name=name)

    def _make(self, engine: EngineId) -> FakeEngine:
        self.engines.append(FakeEngine(engine, script={"tell": TALE}, ticking=True))
        return self.engines[-1]

    async def client(self) -> httpx.AsyncClient:
        line = await self.lines.get()
        assert line.startswith("Parrot serves fake at http://127.0.0.1:")
        return httpx.AsyncClient(base_url=line.split()[4])

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    server = Running()
    yield server
    await server.stop()


async def test_a_stream_that_broke_resumes_where_it_was(running: Running):
    async with await running.client() as client:
        await client.post("/v1/submit", json=PROGRAM)
        seen, last = "", ""
        async with aconnect_sse(client, "GET", TALE_STREAM) as source:
            events = source.aiter_sse()
            while len(seen) < 10:
                reading = asyncio.ensure_future(anext(events))
                while not reading.done():
                    await running.engines[0].tick()
                    await asyncio.sleep(0)
                seen, last = seen + reading.result().json()["text"], reading.result().id
            await events.aclose()
        async with aconnect_sse(client, "GET", TALE_STREAM, headers={"Last-Event-ID": last}) as source:
            await running.engines[0].tick(100)
            events = [event async for event in source.aiter_sse()]
        assert seen + "".join(event.json()["text"] for event in events if event.event == "delta") == TALE
        assert events[-1].json()["value"] == TALE


async def sessions_fall_to(client: httpx.AsyncClient, count: int) -> None:
    while f"parrot_sessions {count}.0" not in (await client.get("/metrics")).text:
        await asyncio.sleep(0.01)


async def test_a_client_that_leaves_cancels_nothing_until_its_lease(running: Running):
    async with await running.client() as client:
        answering = aconnect_sse(client, "POST", "/v1/submit", json=PROGRAM | {"wait": [{"variable": "tale"}]})
        async with answering as source:
            assert (await anext(source.aiter_sse())).event == "accepted"
            waiting = asyncio.ensure_future(client.get("/v1/sessions/s1/variables/tale", timeout=None))
            for _ in range(5):  # by now the server has taken up the wait that was sent before
                assert (await client.get("/v1/sessions/s1")).is_success
        longer = {"session": "probe", "lease_seconds": 2 * PROGRAM["lease_seconds"]}
        assert (await client.post("/v1/submit", json=longer)).is_success
        await sessions_fall_to(client, 1)  # the probe's, though its lease was the longer one
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await sessions_fall_to(client, 0)
        assert (await client.get(TALE_STREAM)).status_code == 404


async def test_open_streams_end_clearly_when_the_service_stops(running: Running):
    async with await running.client() as client:
        answering = aconnect_sse(
            client, "POST", "/v1/submit", json=PROGRAM | {"wait": [{"variable": "tale", "stream": True}]}
        )
        async with answering as source:
            events = source.aiter_sse()
            assert (await anext(events)).event == "accepted"
            stopping = asyncio.ensure_future(running.stop())
            failure = await anext(events)
            assert (failure.event, failure.json()["error"]["code"]) == ("failure", "service_unavailable")
            assert [event async for event in events] == []
        await stopping
        with pytest.raises(httpx.ConnectError):
            await client.get("/healthz")


WAITING = PROGRAM | {"lease_seconds": 30, "wait": [{"variable": "tale", "stream": True}]}


async def until_draining(client: httpx.AsyncClient) -> None:
    """Another signal before the first has been heard would be one with it."""
    while (await client.get("/readyz")).status_code != 503:
        await asyncio.sleep(0.01)


async def test_a_signal_lets_open_exchanges_end_and_nothing_new_begin(running: Running):
    async with await running.client() as client:
        await client.post("/v1/submit", json=WAITING | {"wait": []})
        answering = aconnect_sse(client, "POST", "/v1/submit", json=WAITING)
        waiting = asyncio.ensure_future(client.get("/v1/sessions/s1/variables/tale", timeout=None))
        async with answering as source:
            events = source.aiter_sse()
            assert (await anext(events)).event == "accepted"
            os.kill(os.getpid(), signal.SIGTERM)
            await until_draining(client)
            assert (await client.get("/healthz")).is_success
            refused = await client.post("/v1/submit", json={"session": "s2", "variables": [{"id": "new"}]})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
            asked = {"model": "fake", "prompt": "tell"}
            assert (await client.post("/v1/completions", json=asked)).status_code == 503
            late = asyncio.ensure_future(client.post("/v1/submit", json={"session": "s1", "wait": WAITING["wait"]}))
            for _ in range(5):
                assert (await client.get("/healthz")).is_success
            await running.engines[0].tick(100)
            assert [event async for event in events][-1].json()["value"] == TALE
        assert (await waiting).json()["value"] == TALE
        assert TALE in (await late).text
        await asyncio.wait_for(running.task, 30)
        told = running.lines.get_nowait()
        assert told.startswith("Parrot is shutting down: it ends when nobody waits for an answer any more, or in 30 s")


@pytest.mark.parametrize(("seconds", "signals"), [(30, 2), (0.05, 1), (0, 1)], ids=["second signal", "late", "none"])
async def test_what_takes_longer_than_the_service_has_is_ended(seconds: float, signals: int):
    running = Running(drain_seconds=seconds)
    try:
        async with await running.client() as client, aconnect_sse(client, "POST", "/v1/submit", json=WAITING) as source:
            events = source.aiter_sse()
            assert (await anext(events)).event == "accepted"
            os.kill(os.getpid(), signal.SIGTERM)
            if signals > 1:
                await until_draining(client)
                os.kill(os.getpid(), signal.SIGTERM)
            failure = await anext(events)
            assert (failure.event, failure.json()["error"]["code"]) == ("failure", "service_unavailable")
        await asyncio.wait_for(running.task, 30)
    finally:
        await running.stop()


async def test_a_service_says_what_it_loads_and_where_before_it_has_loaded():
    lines: asyncio.Queue[str] = asyncio.Queue()

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        lines.put_nowait("loaded")
        return fake_model(FakeEngine, name=name)

    config = ServiceConfig(models=("fake",), port=0)
    say = lines.put_nowait
    task = asyncio.create_task(serve_until_stopped(config, announce=say, loading=say, load=load))
    loading, loaded, ready = [await lines.get() for _ in range(3)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert loaded == "loaded"
    url = ready.split()[4]
    assert loading == f"Parrot is loading fake for {url} ..."


async def test_a_service_whose_engines_do_not_start_says_why():
    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        from parrotserve.engines.fake import Faults

        refuse = Faults(refuse_start=EngineFailed("no memory"))
        return fake_model(lambda engine: FakeEngine(engine, faults=refuse), name=name)

    config = ServiceConfig(models=("fake",), port=0)
    with pytest.raises(EngineFailed, match="no memory"):
        await serve_until_stopped(config, announce=print, load=load)


def test_a_port_in_use_is_said_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServiceUnavailable, match=f"Port {port} of 127.0.0.1 is in use .* --port"):
            open_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "nul\0l", "\udcff"])
def test_an_address_that_nobody_has_is_told(host: str):
    with pytest.raises(ServiceUnavailable, match="Cannot listen on port 0 of "):
        open_socket(host, 0)


def has_both() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return socket.has_dualstack_ipv6()
    return False


@pytest.mark.skipif(not has_both(), reason="without IPv6, or a system that keeps it apart")
def test_all_addresses_of_ipv6_are_all_of_ipv4_too():
    with open_socket("::", 0) as listener:
        port = listener.getsockname()[1]
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as client:
                client.connect((address, port))
                assert client.getpeername()[:2] == (address, port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "a-name", ""])
@pytest.mark.parametrize("mode", KEY_MODES)
def test_an_address_that_others_reach_is_refused_without_keys(
    host: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    config = ServiceConfig(models=("fake",), host=host, port=0, keys=mode, data=tmp_path)
    with pytest.raises(DeclarationError, match="reached from other machines"):
        serve(config)


@pytest.mark.parametrize("host", ["nowhere", "a..b", "x" * 70])
def test_a_host_that_there_is_not_is_told_as_such(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unknown(name: str, port: object) -> None:
        name.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DeclarationError, match=rf"'{host}' does not resolve to an address \(.*such as 127\.0\.0\.1"):
        serve(ServiceConfig(models=("fake",), host=host, port=0, data=tmp_path))


def test_an_address_that_others_reach_is_served_once_there_is_a_key(tmp_path: Path):
    with contextlib.closing(TenantStore(tmp_path)) as store:
        store.create_tenant("search", Limits())
        config = ServiceConfig(host="0.0.0.0", data=tmp_path)
        key, _ = store.create_key("search")
        check_reach(config, Directory(store))
        store.revoke_key(key)
        with pytest.raises(DeclarationError, match="parrot key create"):
            check_reach(config, Directory(store))


@contextlib.contextmanager
def serving(before: str = "pass", **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A service in a process of its own, which does `before` first."""
    program = (
        "import signal, sys, threading; from parrotserve.config import ServiceConfig; "
        "from parrotserve.server import run; "
        f"{before}; run.serve(ServiceConfig(models=('fake',), port=0, **{options!r}))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment | {"PYTHONWARNINGS": ""}
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("Parrot serves fake at http://127.0.0.1:"), line
    return line.split()[4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_cleanly(number: signal.Signals):
    with serving("signal.signal(signal.SIGHUP, signal.SIG_DFL)") as process:  # whoever runs the tests may ignore it
        address_of(process)
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_service_that_is_to_outlive_its_terminal_does():
    with serving("signal.signal(signal.SIGHUP, signal.SIG_IGN)") as process:
        url = address_of(process)
        process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{url}/readyz").is_success
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_service_whose_log_nobody_reads_any_more_ends_when_told_to():
    with serving(drain_seconds=0.2) as process:
        url = address_of(process)
        empty = {"session": "s1", "variables": [{"id": "empty"}], "wait": [{"variable": "empty"}]}
        with httpx.stream("POST", f"{url}/v1/submit", json=empty, timeout=None) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: accepted"
            assert process.stderr is not None
            process.stderr.close()
            process.terminate()
            assert any("service_unavailable" in line for line in lines)
        assert process.wait(timeout=30) == 0


def test_a_signal_ends_a_service_that_fetches_its_model_yet():
    fetch = "lambda *_: (print('fetching', file=sys.stderr, flush=True), threading.Event().wait())"
    with serving(f"run.serve_until_stopped.__kwdefaults__['load'] = {fetch}") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "fetching\n"
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""


async def test_idle_connections_are_closed_later_than_balancers_close_theirs(monkeypatch: pytest.MonkeyPatch):
    assert run.KEEP_ALIVE_SECONDS > 60
    monkeypatch.setattr(run, "KEEP_ALIVE_SECONDS", 1)
    running = Running()
    try:
        async with await running.client() as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            for _ in range(2):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await reader.readuntil(b'{"status":"ok"}')).startswith(b"HTTP/1.1 200")
            idle = asyncio.get_running_loop().time()
            assert await asyncio.wait_for(reader.read(), 30) == b""
            assert 0.9 < asyncio.get_running_loop().time() - idle < 4.5
            writer.close()
    finally:
        await running.stop()


def test_short_answers_do_not_wait_for_an_acknowledgement():
    with (
        open_socket("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as served,
    ):
        assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
