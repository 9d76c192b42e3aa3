"""Native functions: ordinary Python between prompts."""

import asyncio
import inspect
import threading

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import DeclarationError, EngineFailed, NativeCallFailed, ServiceUnavailable
from parrotserve.sdk.session import current_session


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@P.NativeFunction
def Upper(text: str) -> str:
    return text.upper()


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

    def test_returning_nothing_is_a_failure(self, service: FakeService):
        @P.NativeFunction
        def Forget(text: str) -> None:
            text.upper()

        with pytest.raises(NativeCallFailed, match="it returned nothing; return the text"):
            Forget("x").get()

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

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    def test_timeouts_are_positive(self, timeout: float):
        with pytest.raises(DeclarationError, match="timeout must be above 0"):
            P.NativeFunction(timeout=timeout)

    def test_unknown_options_are_refused(self):
        with pytest.raises(DeclarationError, match="NativeFunction has no option 'timeot'; did you mean 'timeout'"):
            P.NativeFunction(timeot=3)  # pyright: ignore[reportCallIssue]


async def gone(*_: object) -> None:
    raise ServiceUnavailable("Gone.")


def test_it_looks_like_the_function():
    assert (Upper.__name__, list(inspect.signature(Upper).parameters)) == ("Upper", ["text"])
    assert repr(Upper) == "<NativeFunction Upper(text)>"
