"""Running the HTTP server until a signal ends it."""

import asyncio
import contextlib
import errno
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Container, Coroutine, Generator
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from prometheus_client import disable_created_metrics

from parrotserve.config import ServiceConfig
from parrotserve.errors import ServiceUnavailable
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import Loader, load_model
from parrotserve.runtime.service import Service
from parrotserve.server.app import create_app
from parrotserve.server.descriptors import ShortageHandler, most_connections, most_with_health_checks, raise_limit
from parrotserve.server.hosts import check_reach, check_resolves
from parrotserve.server.impatience import ImpatientProtocol
from parrotserve.server.room import Room
from parrotserve.store.journal import Journal
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.store import TenantStore

GRACE_SECONDS = 5
"""Time that is left for sending answers once the service has ended its exchanges."""
BACKLOG = 128
"""Length of the listen queue. asyncio tries to accept as many connections in one turn, and logs each one that fails."""
KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle between two requests. Load balancers keep and reuse theirs for up to 60 seconds: if
we closed first, a request sent at that moment would be lost."""
_LOOKS = (1_000, 3, 200)
"""Thresholds of Python's garbage collector: new objects before a collection of the youngest generation, such
collections before one of the middle generation, and those before a full one. Objects that survive are examined twice, a
millisecond at a time; the long, full collection is only needed for what ended sessions do not free themselves."""


def serve(
    config: ServiceConfig, *, progress: Progress | None = None, announce: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or the end of the terminal. Then results that somebody waits for may still be
    finished, for `drain_seconds`; a second signal ends the server at once, as SIGTERM does while models are loaded.

    Prints one line, by default on standard error, once all engines are up, and one if it waits for exchanges to end; on
    a terminal, also one that it is loading.

    Raises `DeclarationError` for an address that others can reach without keys, `ServiceUnavailable` if the port is
    taken, `ModelError` and `EngineFailed` if a model or an engine does not come up.
    """
    disable_created_metrics()  # they would add to every metric in /metrics a line with the time of its creation
    asyncio.run(serve_until_stopped(config, progress=progress, announce=announce or _on_stderr, loading=_on_terminal))


async def serve_until_stopped(
    config: ServiceConfig,
    *,
    progress: Progress | None = None,
    announce: Callable[[str], None],
    loading: Callable[[str], None] = lambda _: None,
    load: Loader = load_model,
) -> None:
    """Do the same as `serve` inside a running event loop; cancelling it ends the server too. `loading` gets the line
    that the server listens and what it loads, `announce` gets the others."""
    with contextlib.closing(TenantStore(config.data_folder)) as store, contextlib.ExitStack() as opened:
        directory = Directory(store, always=config.keys == "always", never=config.keys == "never")
        check_resolves(config.host)
        check_reach(config, directory)
        listener = opened.enter_context(contextlib.closing(open_socket(config.host, config.port)))
        loading(f"Parrot is loading {', '.join(config.models)} for {url_of(listener)} ...")
        raise_limit()
        asyncio.get_running_loop().set_exception_handler(ShortageHandler())
        async with _journal_of(config) as journal:
            starting = Service.start(config, progress=progress, load=load, directory=directory, journal=journal)
            service = await _unless_told_to_end(starting)
            if service is None:
                return
            try:
                await _run(service, listener, announce)
            finally:
                await service.close()


@contextlib.asynccontextmanager
async def _journal_of(config: ServiceConfig) -> AsyncGenerator[Journal | None]:
    """The journal of the service on this port, if there is to be one. Raises `ServiceUnavailable` if it cannot be
    opened."""
    if not (config.journal and config.port):
        yield None
        return
    journal = Journal(config.data_folder / f"journal-{config.port}.db")
    try:
        yield journal
    finally:
        await journal.close()


async def _unless_told_to_end(starting: Coroutine[Any, Any, Service]) -> Service | None:
    """The started service, or None if a signal came before its models were loaded. Fetching them may take minutes, and
    signals without a handler do not end the first process of a container."""
    task = asyncio.ensure_future(starting)
    try:
        with _on_signals(task.cancel, but=(signal.SIGINT,)):  # which asyncio handles from the start
            return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        return None


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket. On `::` it takes IPv4 connections too, if the system can. See `serve` for errors."""
    try:
        found = {family for family, *_ in socket.getaddrinfo(host or None, port)}
        family = socket.AF_INET if socket.AF_INET in found else socket.AF_INET6
        both = host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            message = f"Port {port} of {host} is in use by another program. Stop it, or choose another with --port."
        else:
            why, _, _ = str(getattr(error, "strerror", None) or error).partition(" (while")
            message = f"Cannot listen on port {port} of {host!r}: {why}."
        raise ServiceUnavailable(message) from error
    # Connections inherit this option. asyncio sets it only on sockets made with an explicit protocol number, which
    # these are not, and without it every short answer waits some 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def _run(service: Service, listener: socket.socket, announce: Callable[[str], None]) -> None:
    room = Room(most_connections())
    app = create_app(service, room)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(ImpatientProtocol, room=room)),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=BACKLOG,
        limit_concurrency=most_with_health_checks(room.most),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = _Server(config)
    room.connections = server.server_state.connections

    draining: list[asyncio.Task[None]] = []

    def stop() -> None:
        service.end_exchanges()
        if server.should_exit:
            server.force_exit = True
        server.should_exit = True

    def signalled() -> None:
        if draining:
            stop()
        else:
            draining.append(asyncio.ensure_future(_drain(service, announce, stop)))

    with contextlib.closing(app.state.parser), _on_signals(signalled):
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            await _until_ready(service, serving)
            _settle_memory()
            if not serving.done() and not draining:
                announce(banner(service, listener))
            await asyncio.wait({serving})
        finally:
            for task in draining:
                task.cancel()
            stop()
            await serving


async def _drain(service: Service, announce: Callable[[str], None], stop: Callable[[], None]) -> None:
    """Let results that somebody waits for be finished, for at most `drain_seconds`; then stop."""
    seconds = service.config.drain_seconds
    service.drain()
    if service.ending.waited_for and seconds:
        late = f", or in {seconds:g} seconds" if math.isfinite(seconds) else ""
        announce(
            f"Parrot is shutting down: it ends when nobody waits for an answer any more{late}. Another signal ends it "
            "at once."
        )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await service.ending.drained()
    stop()


def _settle_memory() -> None:
    """Exempt the objects that exist now, which live on, from garbage collection. Otherwise every full collection would
    examine them, which stops all streams for tens of milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_LOOKS)


async def _until_ready(service: Service, serving: asyncio.Future[None]) -> None:
    """Wait until all engines are up or the server is stopped. Raises the error of an engine that cannot be started."""
    starting = asyncio.ensure_future(service.wait_started())
    try:
        await asyncio.wait({starting, serving}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


def banner(service: Service, listener: socket.socket) -> str:
    """The line that says which models are served, where, with how much KV cache, and whether sessions came back."""
    models = ", ".join(model.name for model in service.models())
    tokens = sum(engine.free_tokens for engine in service.engines())
    keys = ", API keys asked for" if service.directory.closed else ""
    many = service.recovered
    back = f", {many} session{'s go' if many > 1 else ' goes'} on from before" if many else ""
    return f"Parrot serves {models} at {url_of(listener)} (KV cache: {tokens:,} tokens{keys}{back}). Ctrl-C stops it."


def url_of(listener: socket.socket) -> str:
    """The URL of a listening socket: `http://127.0.0.1:8000`."""
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    return f"http://{address}:{port}"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # `_run` handles signals: uvicorn would raise them again at its end, before the engines were closed.
        yield


@contextlib.contextmanager
def _on_signals(stop: Callable[[], object], *, but: Container[signal.Signals] = ()) -> Generator[None]:
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)

    with contextlib.ExitStack() as restore:
        for number in _ending_signals():
            if number in but:
                continue
            # Only the main thread can handle signals; elsewhere `signal` raises.
            with contextlib.suppress(ValueError):
                restore.callback(signal.signal, number, signal.signal(number, handle))
        yield


def _ending_signals() -> list[signal.Signals]:
    """The signals that end the service. SIGHUP, sent when its terminal closes, is one of them unless it is ignored
    because the service was started to outlive the terminal (`nohup`)."""
    ending = [signal.SIGINT, signal.SIGTERM]
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        ending.append(hangup)
    return ending


def _on_terminal(line: str) -> None:
    """Print a line for people only: a program that starts a service may take the first line with a URL as the sign that
    it is ready."""
    if sys.stderr.isatty():
        _on_stderr(line)


def _on_stderr(line: str) -> None:
    # The reader of a pipe may be gone, as `tee` is after the Ctrl-C that also ends the service. Then standard error is
    # discarded, because Python would try to write the line again when it exits, and fail because of that.
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        with open(os.devnull, "wb") as nothing, contextlib.suppress(OSError):
            os.dup2(nothing.fileno(), sys.stderr.fileno())
