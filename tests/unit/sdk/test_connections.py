"""Which service a program talks to."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from fake_service import FakeService
from fake_time import FakeTime

import Parrot as P
from parrotserve.errors import Cancelled, DeclarationError, EngineFailed, GetTimeout, ServiceUnavailable
from parrotserve.ids import SessionId
from parrotserve.sdk import connection as connections
from parrotserve.sdk import courier
from parrotserve.sdk.connection import Connection, current_connection, use
from parrotserve.sdk.http import HttpTransport


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[FakeService]:
    """The embedded services that were made."""
    made: list[FakeService] = []

    def make() -> FakeService:
        made.append(FakeService())
        return made[-1]

    monkeypatch.setattr(connections, "_embedded", make)
    monkeypatch.setattr(connections, "_current", None)
    return made


def test_with_nothing_configured_the_first_call_starts_an_embedded_service(embedded: list[FakeService]):
    assert Write("x").get() == "<text>"
    assert Write("y").get() == "<text>"
    assert [service.log for service in embedded] == [["open"]]
    current_connection().close()
    assert embedded[0].log == ["open", "end", "close"]


def test_after_closing_the_next_call_starts_anew(embedded: list[FakeService]):
    for _ in range(2):
        Write("x").get()
        current_connection().close()
    assert [service.log for service in embedded] == [["open", "end", "close"]] * 2


def test_the_environment_names_a_service(embedded: list[FakeService], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARROT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PARROT_API_KEY", "k")
    assert isinstance(current_connection().transport, HttpTransport)
    assert embedded == []


def test_connect_needs_no_service_yet(embedded: list[FakeService]):
    with P.connect("http://127.0.0.1:9/", api_key="k") as connection:
        assert current_connection() is connection
    assert current_connection() is not connection


@pytest.mark.parametrize("url", ["http://host:1/v1", "http://host:1/v1/", "http://host:1/"])
def test_the_address_that_openais_clients_are_given_will_do(url: str):
    assert repr(HttpTransport(url)) == repr(HttpTransport("http://host:1"))


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://host:x",
        "http://[",
        "",
        "http://host\n",
        "http://xn--",
        "http://host?a=1",
    ],
)
def test_what_is_no_url_is_refused_at_once(url: str):
    with pytest.raises(ServiceUnavailable, match="is not the URL of a service"):
        P.connect(url)


@pytest.mark.parametrize("url", ["http://user:secret@host:99999", "user:secret@host:8000", "ftp://user:secret@host"])
def test_a_refused_url_is_shown_without_its_password(url: str):
    with pytest.raises(ServiceUnavailable, match=r"host.* is not the URL of a service; write http://") as refused:
        P.connect(url)
    assert "secret" not in f"{refused.value.message} {refused.value.details}"


@pytest.mark.parametrize("key", ["clé", "two\nlines", "nul\0", "\udce9"])
def test_what_can_be_no_key_is_refused_at_once(key: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DeclarationError, match="copy it again") as refused:
        P.connect("http://127.0.0.1:9", api_key=key)
    assert key not in str(refused.value)


def test_without_an_embedded_service_it_says_what_to_configure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "_embedded", None)
    monkeypatch.setattr(connections, "_current", None)
    with pytest.raises(ServiceUnavailable, match="set PARROT_URL"):
        Write("x")


def test_many_threads_open_it_once(service: FakeService):
    meeting = threading.Barrier(8)
    values: list[str] = []

    def work() -> None:
        meeting.wait()
        values.append(Write("x").get())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == ["<text>"] * 8
    assert service.log.count("open") == 1


@dataclass
class Unlucky(FakeService):
    """Fails to open the first time."""

    error: Exception = field(kw_only=True)

    async def open(self) -> None:
        await super().open()
        if len(self.log) == 1:
            raise self.error


@pytest.mark.parametrize("error", [EngineFailed("No engine came up."), RuntimeError("No engine, by a defect.")])
def test_a_service_that_did_not_come_up_is_tried_again(error: Exception):
    service = Unlucky(error=error)
    with use(service, timer=FakeTime()):
        text = Write("x")
        with pytest.raises(type(error), match="No engine"):
            text.get()
        assert text.get() == "<text>"
    assert service.log == ["open", "open", "end", "close"]


def test_what_never_opened_is_never_closed():
    service = FakeService()
    connection = Connection(service)
    connection.close()
    connection.close()
    assert service.log == []


class Endless(FakeService):
    """It takes for ever to come up: a model is being fetched, say."""

    async def open(self) -> None:
        await super().open()
        try:
            await asyncio.Event().wait()
        finally:
            self.log.append("stopped")


def test_a_service_that_is_coming_up_is_stopped_rather_than_waited_for():
    service = Endless()
    with use(service, timer=FakeTime()) as connection:
        text = Write("x")
        with pytest.raises(GetTimeout):
            text.get(timeout=0)
        service.until(lambda: service.log == ["open"])
    assert service.log == ["open", "stopped", "close"]
    assert not connection.usable
    with pytest.raises(Cancelled, match="ended before 'text' was read"):
        text.get()


def test_whoever_waits_for_it_is_told():
    service = Endless()
    with ThreadPoolExecutor() as pool:
        with use(service, timer=FakeTime()), P.Session() as session:
            reading = pool.submit(contextvars.copy_context().run, lambda: Write("x").get())
            service.until(lambda: service.log == ["open"])
            session.connection.close()
        with pytest.raises(Cancelled, match="ended before 'text' was read"):
            reading.result(10)


@dataclass
class Mute(FakeService):
    """Never answers that a session has ended."""

    async def end_session(self, session: SessionId) -> None:
        await super().end_session(session)
        await asyncio.Event().wait()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is in a hurry waits for next to nothing, who is not for ever."""
    monkeypatch.setattr(courier, "END_SECONDS", 3600.0)
    monkeypatch.setattr(connections, "HURRIED_SECONDS", 0.01)


@pytest.mark.usefixtures("hurried")
def test_who_interrupts_a_block_does_not_wait_for_a_service_that_does_not_answer():
    service = Mute()

    def program() -> None:
        with use(service, timer=FakeTime()):
            Write("x").get()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program()
    assert service.log == ["open", "end", "close"]


@pytest.mark.usefixtures("hurried")
async def test_a_task_that_is_cancelled_does_not_either():
    service = Mute()

    async def work() -> None:
        async with use(service, timer=FakeTime()):
            await Write("x")
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.to_thread(service.until, lambda: bool(service.submits))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.log == ["open", "end", "close"]


async def test_coroutines_have_connections_in_blocks_too(service: FakeService):
    outer, inner = current_connection(), FakeService()
    async with use(inner, timer=FakeTime()) as connection:
        assert current_connection() is connection
        assert await Write("x") == "<text>"
    assert inner.log == ["open", "end", "close"]
    assert current_connection() is outer
    assert service.log == []


def test_a_connection_shows_where_it_leads(embedded: list[FakeService]):
    with P.connect("http://user:secret@127.0.0.1:9") as connection:
        assert repr(connection) == "<Connection HttpTransport('http://127.0.0.1:9')>"
    assert repr(connection) == "<Connection HttpTransport('http://127.0.0.1:9') (closed)>"


async def test_a_connection_is_closed_on_any_loop(service: FakeService):
    text = Write("x")
    await text
    await current_connection().aclose()
    assert service.log == ["open", "end", "close"]


def test_a_closed_connection_says_so(service: FakeService):
    text = Write("x")
    current_connection().close()
    with pytest.raises(ServiceUnavailable, match="was closed"):
        text.get()


def test_after_a_block_the_connection_before_it_is_in_use_again(service: FakeService):
    outer = current_connection()
    with use(FakeService()):
        assert current_connection() is not outer
    assert current_connection() is outer
