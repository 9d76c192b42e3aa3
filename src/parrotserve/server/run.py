"""Running the HTTP server until a signal ends it."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable, Generator
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from prometheus_client import disable_created_metrics

from parrotserve.config import ServiceConfig
from parrotserve.errors import DeclarationError, ServiceUnavailable
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import Loader, load_model
from parrotserve.runtime.service import Service
from parrotserve.server.app import create_app
from parrotserve.server.descriptors import ShortageHandler, most_connections, most_with_health_checks, raise_limit
from parrotserve.server.hosts import is_loopback
from parrotserve.server.impatience import ImpatientProtocol
from parrotserve.server.room import Room
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.store import TenantStore

GRACE_SECONDS = 5
"""How long answers may still take to be sent once the service has ended its exchanges."""
BACKLOG = 128
"""Connections that wait to be taken. asyncio tries to take as many in a turn, and complains of each that it cannot."""
KEEP_ALIVE_SECONDS = 75
"""How long a connection may lie idle between two requests. Balancers keep theirs for up to 60 and ask again on them:
where we close first, such a request is lost."""
_LOOKS = (1_000, 3, 200)
"""New objects before a look through them for garbage; such looks before one through what they left, and these before
one through all. What lives on is looked at twice, a millisecond at a time, and the long look is left for what the
sessions that end do not free themselves."""


def serve(
    config: ServiceConfig, *, progress: Progress | None = None, announce: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM: then what is waited for may end, for `drain_seconds`; a second signal ends it.

    Says one line, by default on standard error, once all engines are up, and one if it waits for exchanges to end.

    Raises `DeclarationError` for an address that others can reach without keys, `ServiceUnavailable` where the port is
    taken, `ModelError` and `EngineFailed` where a model or an engine does not come up.
    """
    disable_created_metrics()  # beside each line of /metrics that tells something, one of when it began to
    asyncio.run(serve_until_stopped(config, progress=progress, announce=announce or _on_stderr))


async def serve_until_stopped(
    config: ServiceConfig,
    *,
    progress: Progress | None = None,
    announce: Callable[[str], None],
    load: Loader = load_model,
) -> None:
    """The same inside a running event loop; cancelling it ends the server too."""
    with contextlib.closing(TenantStore(config.data_folder)) as store, contextlib.ExitStack() as opened:
        directory = Directory(store, always=config.keys == "always", never=config.keys == "never")
        check_reach(config, directory)
        listener = opened.enter_context(contextlib.closing(open_socket(config.host, config.port)))
        raise_limit()
        asyncio.get_running_loop().set_exception_handler(ShortageHandler())
        service = await Service.start(config, progress=progress, load=load, directory=directory)
        try:
            await _run(service, listener, announce)
        finally:
            await service.close()


def check_reach(config: ServiceConfig, directory: Directory) -> None:
    """Raises `DeclarationError` where a service that others can reach would let them in without a key."""
    if is_loopback(config.host):
        return
    reach = f"{config.host!r} can be reached from other machines"
    if config.keys == "never":
        raise DeclarationError(f"{reach}, where keys=never would let everybody in. Bind to 127.0.0.1.", setting="keys")
    if not directory.usable:
        raise DeclarationError(
            f"{reach}, and there are no keys yet to tell who may use this service. Make one with `parrot tenant create "
            "NAME` and `parrot key create NAME`, or bind to 127.0.0.1.",
            setting="host",
        )


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket. See `serve` for errors."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"Port {port} of {host} is in use by another program. Stop it, or choose another with --port."
        else:
            message = f"Cannot listen on port {port} of {host}: {error.strerror or error}."
        raise ServiceUnavailable(message) from error
    # Connections inherit it. asyncio sets it only on sockets made with an explicit protocol number, which these are
    # not, and without it every short answer waits some 40 ms for the client's delayed acknowledgement.
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
    """Let what is waited for end, if it does so soon; then stop."""
    seconds = service.config.drain_seconds
    service.drain()
    if service.ending.waited_for and seconds:
        announce(
            f"Parrot ends once nobody waits for anything, or in {seconds:g} seconds. Another signal ends it at once."
        )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await service.ending.drained()
    stop()


def _settle_memory() -> None:
    """What is there now stays: else every full look for garbage goes through it, which stops all streams for tens of
    milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_LOOKS)


async def _until_ready(service: Service, serving: asyncio.Future[None]) -> None:
    """All engines are up, or the server was stopped before. Raises why an engine cannot be started."""
    starting = asyncio.ensure_future(service.wait_started())
    try:
        await asyncio.wait({starting, serving}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


def banner(service: Service, listener: socket.socket) -> str:
    """One line: where, what, and how much cache."""
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    models = ", ".join(model.name for model in service.models())
    tokens = sum(engine.free_tokens for engine in service.engines())
    keys = ", API keys asked for" if service.directory.closed else ""
    return f"Parrot serves {models} at http://{address}:{port} (KV cache: {tokens:,} tokens{keys}). Ctrl-C stops it."


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # Signals are ours: uvicorn would raise them again at its end, before the engines were closed.
        yield


@contextlib.contextmanager
def _on_signals(stop: Callable[[], None]) -> Generator[None]:
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)

    with contextlib.ExitStack() as restore:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Outside the main thread there are no signals to handle.
            with contextlib.suppress(ValueError):
                restore.callback(signal.signal, number, signal.signal(number, handle))
        yield


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
