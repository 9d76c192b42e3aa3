"""Programs against a real server: the same as embedded, in few exchanges, whatever happens to the connection."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sdk_server import Served, ServedApart, recite

import Parrot as P
from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport
from parrotserve.errors import (
    AlreadyProduced,
    Cancelled,
    ContextExceeded,
    GetTimeout,
    NativeCallFailed,
    ServiceUnavailable,
    SessionLost,
    UnknownModel,
)
from parrotserve.protocol import CallState
from parrotserve.sdk import courier
from parrotserve.sdk.cell import State
from parrotserve.sdk.connection import use
from parrotserve.sdk.http import HttpTransport


@P.SemanticFunction
def WritePythonCode(task: P.SemanticVariable):
    """You are an expert software engineer.
    Write python code of {{input:task}}.
    Code: {{output:code}}
    """


@P.SemanticFunction
def WriteTestCode(task: P.SemanticVariable, code: P.SemanticVariable):
    """ You are an experienced QA engineer.
    You write test code for {{input:task}}.
    Code: {{input:code}}.
    Your test code: {{output:test}}
    """  # fmt: skip


@P.SemanticFunction(max_tokens=2000)
def Echo(text: str):
    """Echo: {{input:text}}{{output:echo}}"""


@P.NativeFunction
def Upper(text: str) -> str:
    return text.upper()


def write_snake_game() -> tuple[str, str]:
    task = P.SemanticVariable("a snake game")
    code = WritePythonCode(task)
    test = WriteTestCode(task, code)
    return code.get(), test.get()


Serve = Callable[..., Served]


class TestPrograms:
    def test_the_published_program_says_the_same_embedded_and_served(self, serve: Serve):
        with P.connect(serve().url):
            served = write_snake_game()
        with use(EmbeddedTransport(ServiceConfig(models=("fake",)))):
            embedded = write_snake_game()
        assert served == embedded
        assert all(served)

    def test_the_environment_switches(self, serve: Serve, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PARROT_URL", serve(script=recite).url)
        with P.Session() as session:
            assert isinstance(session.connection.transport, HttpTransport)
            assert Echo("x").get() == "[x]"
            session.end()
        session.connection.close()

    def test_native_functions_run_here(self, serve: Serve):
        with P.connect(serve(script=recite).url):
            assert Echo(Upper(Echo("x"))).get() == "[[X]]"

    def test_native_functions_fail_here(self, serve: Serve):
        @P.NativeFunction
        def Divide(text: str) -> float:
            return 1 / (len(text) - len(text))

        with P.connect(serve(script=recite).url):
            below = Echo(Divide(Echo("x")))
            with pytest.raises(NativeCallFailed, match="Divide raised ZeroDivisionError"):
                below.get()

    @pytest.mark.parametrize("served", [True, False])
    def test_native_functions_whose_words_are_no_unicode_text_fail(self, serve: Serve, served: bool):
        @P.NativeFunction
        def Garble(text: str) -> str:
            return text + "\udce9"

        @P.NativeFunction
        def Complain(text: str) -> str:
            raise ValueError(text + "\udce9")

        with P.connect(serve().url) if served else use(EmbeddedTransport(ServiceConfig(models=("fake",)))):
            for result, told in ((Garble("caf"), "lone surrogate"), (Complain("caf"), r"ValueError: caf\\udce9")):
                for _ in range(2):
                    with pytest.raises(NativeCallFailed, match=told):
                        result.get(timeout=20)

    def test_native_functions_whose_results_are_refused_fail(self, serve: Serve):
        @P.NativeFunction
        def Repeat(text: str) -> str:
            return text * 100_000

        with P.connect(serve(config={"max_body_bytes": 4096}).url):
            result = Repeat("much ")
            for _ in range(2):
                with pytest.raises(NativeCallFailed, match=r"Repeat.*refused: The body is larger than"):
                    result.get(timeout=20)

    @pytest.mark.parametrize("served", [True, False])
    def test_native_functions_whose_success_came_after_they_were_cancelled_can_be_retried(
        self, serve: Serve, served: bool
    ):
        began, cancelled, told = threading.Event(), threading.Event(), threading.Event()
        transport = HttpTransport(serve().url) if served else EmbeddedTransport(ServiceConfig(models=("fake",)))
        put = transport.put_result

        async def put_and_tell(*arguments: Any, attempt: int | None = None) -> CallState:
            state = await put(*arguments, attempt=attempt)
            told.set()
            return state

        transport.put_result = put_and_tell

        @P.NativeFunction
        def Slow() -> str:
            again = began.is_set()
            began.set()
            cancelled.wait()
            return "well" if again else "late"

        with use(transport), P.Session() as session:
            result = Slow()
            session.flush()
            began.wait()
            result.cancel()
            cancelled.set()
            told.wait()
            result.retry()
            assert result.get(timeout=20) == "well"

    def test_streams_come_in_pieces(self, serve: Serve):
        with P.connect(serve(script=recite, step_seconds=0.001).url):
            pieces = list(Echo("a text of some length").stream())
        assert "".join(pieces) == "[a text of some length]"
        assert len(pieces) > 1

    def test_several_threads_and_sessions(self, serve: Serve):
        values: dict[int, str] = {}

        def work(number: int) -> None:
            with P.Session():
                values[number] = Echo(Upper(f"n{number}")).get()

        with P.connect(serve(script=recite).url):
            threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert values == {number: f"[N{number}]" for number in range(12)}

    def test_a_conversation(self, serve: Serve):
        with P.connect(serve().url):
            chat = P.Chat(system="Be a parrot.")
            first = chat.say("Hello?")
            second = chat.say("Again?")
            assert first.get() != second.get()

    def test_set_state_view_retry_cancel(self, serve: Serve):
        address = serve(script=recite).url
        with P.connect(address), P.Session():
            task = P.SemanticVariable(name="task")
            echo = Echo(task)
            assert echo.state is State.PRODUCING
            task.set("late")
            assert echo.get() == "[late]"
            assert 'v0("task<br/><small>ready</small>")' in P.visualize()
            told = P.explain()
            assert "  engine     fake-0: " in str(told)
            assert told.view.requests[0].placement is not None
            answer = httpx.get(f"{address}/v1/sessions/{told.view.id}/explain")
            assert (answer.status_code, answer.text) == (200, str(told))
            waiting = Echo(P.SemanticVariable(name="never"))
            waiting.cancel()
            assert waiting.state is State.CANCELLED
            with pytest.raises(Cancelled):
                waiting.get()


class TestErrors:
    def test_they_keep_their_class(self, serve: Serve):
        @P.SemanticFunction(model="no-such-model")
        def Unknown(text: str):
            """{{input:text}}{{output:y}}"""

        with P.connect(serve(script=recite).url):
            bad, good = Unknown("x"), Echo("y")
            assert good.get() == "[y]"
            with pytest.raises(UnknownModel, match="no-such-model"):
                bad.get()
            with pytest.raises(ContextExceeded):
                Echo("x" * 20_000).get()

    def test_timeouts(self, serve: Serve):
        with P.connect(serve(script=recite, ticking=True).url):
            echo = Echo("x")
            with pytest.raises(GetTimeout):
                echo.get(timeout=0.05)

    def test_set_by_somebody_else(self, serve: Serve):
        with P.connect(serve(script=recite).url), P.Session() as session:
            task = P.SemanticVariable(name="task")
            echo = Echo(task)
            assert echo.state is State.PRODUCING
            identity = next(view.id for view in session.view().variables if view.name == "task")
            session.call(lambda transport, owner: transport.set_value(owner, identity, "theirs"))
            with pytest.raises(AlreadyProduced):
                task.set("mine")
            assert echo.get() == "[theirs]"


class TestExchanges:
    def test_a_chain_of_eight_takes_one_round_trip(self, serve: Serve):
        delay = 0.25
        url = serve(script=recite).url

        def seconds(transport: HttpTransport) -> float:
            with use(transport), P.Session():
                # The first exchange makes the connection, which is not what is measured.
                Echo("warm").get()
                start = time.monotonic()
                variable = P.SemanticVariable("x")
                for _ in range(8):
                    variable = Echo(variable)
                assert variable.get() == "[" * 8 + "x" + "]" * 8
                return time.monotonic() - start

        # The best of several: other programs on the machine only ever add.
        delayed = min(seconds(HttpTransport(url, delay=delay)) for _ in range(3))
        assert delayed - min(seconds(HttpTransport(url)) for _ in range(3)) < 1.2 * delay


LONG = ("some text " * 150).strip()


class TestInterruptions:
    @pytest.fixture
    def apart(self) -> Iterator[ServedApart]:
        server = ServedApart()
        yield server
        server.kill()

    @pytest.mark.parametrize("end", [ServedApart.stop, ServedApart.kill])
    def test_a_service_that_ends_in_mid_stream_is_reported(
        self, apart: ServedApart, end: Callable[[ServedApart], None]
    ):
        with use(HttpTransport(apart.url, patience=0.3)):
            pieces = Echo(LONG).stream()
            first = next(pieces)
            end(apart)
            with pytest.raises(ServiceUnavailable, match="went away"):
                list(pieces)
        assert f"[{LONG}]".startswith(first)

    @pytest.mark.parametrize("end", [ServedApart.stop, ServedApart.kill])
    def test_a_service_that_comes_back_goes_on_with_the_program(
        self, apart: ServedApart, end: Callable[[ServedApart], None]
    ):
        with use(HttpTransport(apart.url, patience=60)):
            pieces = Echo(LONG).stream()
            first = next(pieces)
            end(apart)
            # The new service knows nothing of the session; the program's batch makes it anew.
            again = ServedApart(apart.port, step_seconds=0)
            try:
                assert first + "".join(pieces) == f"[{LONG}]"
            finally:
                again.kill()

    @pytest.mark.parametrize("end", [ServedApart.stop, ServedApart.kill])
    def test_native_functions_go_on_with_a_service_that_comes_back(
        self, apart: ServedApart, end: Callable[[ServedApart], None]
    ):
        def runs() -> bool:
            return any("running" in one["requests"] for one in httpx.get(f"{apart.url}/v1/sessions").json()["data"])

        with use(HttpTransport(apart.url, patience=60)):
            assert Echo("x").get() == "[x]"  # who was never answered takes the URL for wrong
            loud = Upper(Upper(Echo(LONG)))
            told: list[str] = []
            waiting = threading.Thread(target=lambda: told.append(loud.get(timeout=60)))
            waiting.start()
            while not runs():
                time.sleep(0.01)
            end(apart)
            again = ServedApart(apart.port, step_seconds=0)
            try:
                waiting.join()
                assert told == [f"[{LONG}]".upper()]
            finally:
                again.kill()

    @pytest.mark.parametrize("end", [ServedApart.stop, ServedApart.kill])
    def test_a_service_that_comes_back_with_other_texts_is_reported(
        self, apart: ServedApart, end: Callable[[ServedApart], None]
    ):
        with use(HttpTransport(apart.url, patience=60)):
            echo = Echo(LONG)
            pieces = echo.stream()
            read = [next(pieces)]
            end(apart)
            again = ServedApart(apart.port, step_seconds=0, begin="{")
            try:
                with pytest.raises(SessionLost, match="a different text for 'echo'"):
                    read.extend(pieces)
                assert f"[{LONG}]".startswith("".join(read))
                with pytest.raises(SessionLost):
                    echo.get()
                assert Echo("x").get() == "{x]"
            finally:
                again.kill()

    def test_a_service_that_comes_back_without_the_session_is_reported(self, apart: ServedApart):
        with use(HttpTransport(apart.url, patience=60)), P.Session() as session:
            echo = Echo(LONG)
            session.sync()
            # What is asked for in an exchange of its own declares nothing that could be sent again.
            pieces = echo.stream()
            next(pieces)
            apart.kill()
            again = ServedApart(apart.port, step_seconds=0)
            try:
                with pytest.raises(SessionLost, match=session.id):
                    list(pieces)
            finally:
                again.kill()

    @pytest.fixture
    def mute(self) -> Iterator[str]:
        """The URL of a port whose connections are accepted, and never heard of again."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"

    def test_a_port_that_never_answers_is_given_up(self, mute: str):
        with use(HttpTransport(mute, silence=0.05, patience=0)):
            echo = Echo("x")
            with pytest.raises(
                ServiceUnavailable,
                match=rf"{mute} takes connections, but has never answered .* \(it said nothing for 0.05 seconds\)",
            ):
                echo.get()

    def test_who_waits_there_keeps_their_own_time(self, mute: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(courier, "END_SECONDS", 0.05)
        with use(HttpTransport(mute, silence=3600)), pytest.raises(GetTimeout):
            Echo("x").get(timeout=0.05)

    def test_nobody_there(self):
        with use(HttpTransport("http://127.0.0.1:9")):
            echo = Echo("x")
            with pytest.raises(ServiceUnavailable, match="parrot serve"):
                echo.get()
