"""Native functions: ordinary Python between prompts."""

import asyncio
import inspect
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable
from typing import NoReturn

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import DeclarationError, EngineFailed, NativeCallFailed, ServiceUnavailable, UnknownObject
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import (
    CallOffer,
    CallResult,
    CallState,
)
from parrotserve.sdk.session import current_session


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@P.NativeFunction
def Upper(text: str) -> str:
    return text.upper()


def _raise(error: type[BaseException]) -> NoReturn:
    raise error


class TestCalls:
    def test_it_runs_here_when_its_inputs_are_there(self, service: FakeService):
        upper = Upper(Write("x"))
        assert Write(upper).get() == "<text>"
        assert upper.get() == "<TEXT>"
        assert service.functions(service.submits[0]) == ["Write", "Write", "Upper"]

    def test_without_variables_it_is_ready_at_once(self, service: FakeService):
        assert Upper("x").get() == "X"

    def test_arguments_that_are_no_variables_pass_untouched(self, service: FakeService):
        table = {"<text>": 5}

        @P.NativeFunction
        def Look(key: str, where: dict[str, int], *more: object, **named: object) -> int:
            assert where is table
            return where[key] + sum(int(str(each)) for each in (*more, *named.values()))

        assert Look(Write("x"), table, 1, P.SemanticVariable("2"), last=P.SemanticVariable("4")).get() == "12"

    def test_variables_in_lists_become_texts(self, service: FakeService):
        @P.NativeFunction(timeout=10)
        def Join(texts: list[str], options: dict[str, str]) -> str:
            return options["by"].join(texts)

        assert Join([Write("x"), "y"], {"by": P.SemanticVariable("+")}).get() == "<text>+y"

    def test_coroutine_functions(self, service: FakeService):
        @P.NativeFunction
        async def Fetch(key: str) -> str:
            await asyncio.sleep(0)
            return f"{key} fetched"

        assert Fetch(Write("x")).get() == "<text> fetched"

    def test_it_may_call_semantic_functions_in_the_callers_session(self, service: FakeService):
        seen: list[str] = []

        @P.NativeFunction
        def Inner(text: str) -> str:
            seen.append(current_session().id)
            return Write(text).get()

        with P.Session() as session:
            assert Inner("x").get() == "<text>"
        assert seen == [session.id]

    def test_many_run_side_by_side(self, service: FakeService):
        meeting = threading.Barrier(20, timeout=20)

        @P.NativeFunction
        def Meet(n: int) -> int:
            meeting.wait()
            return n

        assert P.gather(Meet(n) for n in range(20)) == [str(n) for n in range(20)]

    def test_one_stream_of_offers_serves_a_session(self, service: FakeService):
        Upper("x").get()
        Upper("y").get()
        assert service.log.count("calls") == 1


class TestFailures:
    def test_an_exception_names_the_function_and_is_chained(self, service: FakeService):
        @P.NativeFunction
        def Divide(text: str) -> float:
            return 1 / len(text)

        with pytest.raises(NativeCallFailed, match="Native function Divide raised ZeroDivisionError") as caught:
            Divide("").get()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    async def test_it_is_chained_to_what_is_downstream_too(self, service: FakeService):
        @P.NativeFunction
        def Divide(text: str) -> float:
            return 1 / len(text)

        @P.SemanticFunction
        def Tell(number: P.SemanticVariable):
            """Tell of {{input:number}}: {{output:tale}}"""

        below = Tell(Tell(Divide("")))
        for _ in range(2):
            with pytest.raises(NativeCallFailed) as caught:
                await below.aget()
            cause = caught.value.__cause__
            assert isinstance(cause, ZeroDivisionError)
            assert traceback.extract_tb(cause.__traceback__)[-1].name == "Divide"
        outcomes = await P.agather(below, return_exceptions=True)
        assert isinstance(outcomes[0].__cause__, ZeroDivisionError)

    def test_it_is_chained_where_a_retry_fails_before_the_program_hears_of_the_retry(
        self, service: FakeService, monkeypatch: pytest.MonkeyPatch
    ):
        @P.NativeFunction
        def Divide(text: str) -> float:
            return 1 / len(text)

        retry = service.retry

        async def late(session: SessionId, variable: VariableId) -> None:
            service.results.clear()
            await retry(session, variable)
            while not service.results:
                await service.changed.wait()

        monkeypatch.setattr(service, "retry", late)
        number = Divide("")
        causes: list[BaseException | None] = []
        for _ in range(2):
            with pytest.raises(NativeCallFailed) as caught:
                number.get()
            causes.append(caught.value.__cause__)
            number.retry()
        assert [type(cause) for cause in causes] == [ZeroDivisionError] * 2
        assert causes[0] is not causes[1]

    def test_it_can_be_retried(self, service: FakeService):
        attempts: list[str] = []

        @P.NativeFunction
        def Flaky() -> str:
            attempts.append("x")
            if len(attempts) == 1:
                raise OSError("not now")
            return "well"

        result = Flaky()
        with pytest.raises(NativeCallFailed):
            result.get()
        result.retry()
        assert result.get() == "well"

    def test_its_consumers_fail_with_it(self, service: FakeService):
        @P.NativeFunction
        def Fail() -> str:
            raise KeyError("k")

        with pytest.raises(NativeCallFailed, match="Fail raised KeyError"):
            Write(Fail()).get()

    def test_returning_what_shows_a_variable_is_a_failure(self, service: FakeService):
        @P.NativeFunction
        def Forget(text: str) -> list[P.SemanticVariable]:
            return [Write(text)]

        with pytest.raises(NativeCallFailed, match="a variable's representation"):
            Forget("x").get()

    def test_returning_nothing_is_a_failure(self, service: FakeService):
        @P.NativeFunction
        def Forget(text: str) -> None:
            text.upper()

        with pytest.raises(NativeCallFailed, match="it returned nothing; return the text"):
            Forget("x").get()

    @pytest.mark.parametrize(
        "leave", [lambda: sys.exit(3), lambda: _raise(KeyboardInterrupt), lambda: _raise(GeneratorExit)]
    )
    def test_leaving_the_program_is_a_failure_of_the_call_alone(self, service: FakeService, leave: Callable[[], str]):
        @P.NativeFunction
        def Leave() -> str:
            return leave()

        with pytest.raises(NativeCallFailed, match=r"Leave raised (SystemExit: 3|KeyboardInterrupt|GeneratorExit)"):
            Leave().get(timeout=10)
        assert Upper("x").get(timeout=10) == "X"

    def test_one_that_never_returns_times_out(self, service: FakeService):
        never = threading.Event()

        @P.NativeFunction(timeout=0.01)
        def Hang() -> str:
            never.wait()
            return ""

        with pytest.raises(NativeCallFailed, match=r"Hang did not return within 0\.01 seconds"):
            Hang().get()
        assert Upper("x").get() == "X"
        never.set()

    def test_it_does_not_run_when_an_input_failed(self, service: FakeService):
        service.script["Write"] = EngineFailed("It died.")
        text = Write("x")
        upper = Upper(text)
        with pytest.raises(EngineFailed):
            text.get()
        assert service.results == {}
        assert not upper.ready

    def test_a_service_that_cannot_be_told_fails_the_wait_only(self, service: FakeService):
        @P.NativeFunction
        def Break() -> str:
            service.down = ServiceUnavailable("Gone.")
            return "x"

        service.put_result = gone  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(ServiceUnavailable, match="Gone"):
            Break().get()

    @pytest.mark.parametrize("raises", [False, True])
    def test_a_result_that_was_not_delivered_as_the_connection_came_back_is_delivered_on_the_new_one(
        self, service: FakeService, monkeypatch: pytest.MonkeyPatch, raises: bool
    ):
        runs: list[str] = []

        @P.NativeFunction
        def Once() -> str:
            runs.append("x")
            if raises:
                raise OSError("no")
            return "y"

        monkeypatch.setattr("parrotserve.sdk.natives.RETRY_SECONDS", 0.01)
        deliver = service.put_result

        async def break_off(session: SessionId, call: CallId, result: CallResult, **_: object) -> None:
            service.put_result = deliver  # pyright: ignore[reportAttributeAccessIssue]
            await offer_again(service, call)
            raise ServiceUnavailable("Gone.")

        service.put_result = break_off  # pyright: ignore[reportAttributeAccessIssue]
        result = Once()
        with pytest.raises(ServiceUnavailable, match="Gone"):
            result.get(timeout=10)
        if raises:
            with pytest.raises(NativeCallFailed, match="OSError: no"):
                result.get(timeout=10)
        else:
            assert result.get(timeout=10) == "y"
        assert runs == ["x"]

    @pytest.mark.parametrize("how", ["unknown", "ended"])
    def test_offers_are_listened_for_again_where_a_session_comes_back(
        self, service: FakeService, monkeypatch: pytest.MonkeyPatch, how: str
    ):
        monkeypatch.setattr("parrotserve.sdk.natives.RETRY_SECONDS", 0.01)
        offers = service.calls

        async def gone(session: SessionId) -> AsyncGenerator[CallOffer, None]:
            service.calls = offers  # pyright: ignore[reportAttributeAccessIssue]
            if how == "unknown":
                raise UnknownObject("There is no session.")
            for nothing in ():
                yield nothing

        service.calls = gone  # pyright: ignore[reportAttributeAccessIssue]
        assert Upper("x").get(timeout=10) == "X"

    def test_a_result_for_a_session_that_comes_back_is_computed_anew(
        self, service: FakeService, monkeypatch: pytest.MonkeyPatch
    ):
        runs: list[str] = []

        @P.NativeFunction
        def Twice() -> str:
            runs.append("x")
            return "y"

        deliver, lost = service.put_result, 0

        async def lose(session: SessionId, call: CallId, result: CallResult, **_: object) -> None:
            nonlocal lost
            lost += 1
            if lost == 2:  # its error is not taken either, and then the session is back
                service.put_result = deliver  # pyright: ignore[reportAttributeAccessIssue]
                await offer_again(service, call)
            raise UnknownObject("There is no session.")

        service.put_result = lose  # pyright: ignore[reportAttributeAccessIssue]
        assert Twice().get(timeout=10) == "y"
        assert runs == ["x", "x"]

    def test_one_that_is_retried_before_its_failure_is_known_to_be_told_runs_again(self, service: FakeService):
        runs: list[str] = []

        @P.NativeFunction
        def Flaky() -> str:
            runs.append("x")
            if len(runs) == 1:
                raise OSError("not now")
            return "well"

        deliver = service.put_result

        async def hang(session: SessionId, call: CallId, result: CallResult, **_: object) -> CallState:
            service.put_result = deliver  # pyright: ignore[reportAttributeAccessIssue]
            await offer_again(service, call)  # as a retry does, whose client heard of the failure first
            return CallState(state="offered")

        service.put_result = hang  # pyright: ignore[reportAttributeAccessIssue]
        assert Flaky().get(timeout=10) == "well"

    def test_where_one_runs_is_yes_or_no(self):
        with pytest.raises(DeclarationError, match="server is True or False"):
            P.NativeFunction(server="no")  # pyright: ignore[reportCallIssue, reportArgumentType]

    def test_methods_are_told_what_to_be(self, service: FakeService):
        class Bird:
            @P.NativeFunction
            def sing(self, song: str) -> str:
                return song

            @staticmethod
            @P.NativeFunction
            def call(song: str) -> str:
                return song

        with pytest.raises(TypeError, match=r"missing .*methods are not supported.*leave it out .* @staticmethod"):
            Bird().sing("x")
        assert Bird().call("x").get() == "x"

    def test_no_end_is_a_timeout(self, service: FakeService):
        @P.NativeFunction(timeout=float("inf"))
        def Repeat(text: str) -> str:
            return text

        assert Repeat("x").get() == "x"
        assert [call.timeout for call in service.native.values()] == [None]

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "3"])
    def test_timeouts_are_positive(self, timeout: float):
        with pytest.raises(DeclarationError, match="a number of seconds above 0"):
            P.NativeFunction(timeout=timeout)

    def test_unknown_options_are_refused(self):
        with pytest.raises(DeclarationError, match="NativeFunction has no option 'timeot'; did you mean 'timeout'"):
            P.NativeFunction(timeot=3)  # pyright: ignore[reportCallIssue]


async def gone(*_: object, **__: object) -> None:
    raise ServiceUnavailable("Gone.")


def test_it_looks_like_the_function():
    assert (Upper.__name__, list(inspect.signature(Upper).parameters)) == ("Upper", ["text"])
    assert repr(Upper) == "<NativeFunction Upper(text)>"


async def offer_again(service: FakeService, call: CallId) -> None:
    """Have the service offer a call that it offered before, and the client hear of it."""
    service.offered.discard(call)
    service._advance()
    while call not in service.offered:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
