"""What programs do wrong gets a clear, typed error and harms nothing else, embedded and over HTTP."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_input import Echo, declared
from tiny_model import CONTEXT

import Parrot as P
from parrotserve.errors import (
    AlreadyProduced,
    Cancelled,
    ContextExceeded,
    DeclarationError,
    ForeignVariable,
    GetTimeout,
    InvalidSchema,
    NativeCallFailed,
    UnknownModel,
)


@pytest.mark.usefixtures("service")
class TestPrograms:
    def test_a_produced_variable_of_another_session(self):
        with P.Session():
            theirs = Echo("x")
            with P.Session(), pytest.raises(ForeignVariable, match="pass the text that `get"):
                Echo(theirs)
            theirs.get()

    def test_setting_a_produced_variable(self):
        said = Echo("x")
        with pytest.raises(AlreadyProduced, match="said"):
            said.set("y")
        assert said.get()

    def test_setting_a_variable_twice(self):
        task = P.SemanticVariable(name="task")
        task.set("x")
        with pytest.raises(AlreadyProduced, match="task"):
            task.set("y")

    @pytest.mark.parametrize("real", [False, True], ids=["fake", "tiny"])
    def test_a_prompt_longer_than_the_context(self, tiny: Path, real: bool):
        tell = declared("{{input:text}} {{output:y}}", max_tokens=4, model=str(tiny) if real else None)
        long, short = tell("x" * (CONTEXT if real else 10_000)), tell("x")
        with pytest.raises(ContextExceeded, match="Shorten the prompt"):
            Echo(long).get()
        assert short.get()

    def test_an_output_longer_than_the_context_is_cut(self, tiny: Path):
        tell = declared("{{input:text}} {{output:y}}", max_tokens=10_000, ignore_eos=True, model=str(tiny))
        said = tell("x" * (CONTEXT - 20))
        assert said.get()
        assert said.finish_reason == "length"

    @pytest.mark.parametrize("name", ["gpt-9", "/no/such/folder", "/etc/passwd", ""])
    def test_an_unknown_model(self, name: str):
        bad, good = declared("{{input:text}} {{output:y}}", model=name)("x"), Echo("x")
        with pytest.raises(UnknownModel, match="fake"):
            bad.get()
        assert good.get()

    @pytest.mark.parametrize(
        "schema", [{"type": "bogus"}, {"type": "string", "pattern": "(["}, {"$ref": "#/nowhere"}], ids=str
    )
    def test_a_schema_that_cannot_be_enforced(self, tiny: Path, schema: dict[str, Any]):
        bad, good = declared("{{input:text}} {{output:y}}", model=str(tiny), schema=schema)("x"), Echo("x")
        with pytest.raises(InvalidSchema, match=r"'function' .*cannot be enforced"):
            bad.get()
        assert good.get()

    def test_a_native_function_that_raises(self):
        @P.NativeFunction
        def Divide(text: str) -> float:
            return 1 / 0

        broken = Divide(Echo("x"))
        below = Echo(broken)
        with pytest.raises(NativeCallFailed, match="Divide raised ZeroDivisionError"):
            below.get()
        with pytest.raises(NativeCallFailed) as failure:
            broken.get()
        assert isinstance(failure.value.__cause__, ZeroDivisionError)

    def test_a_native_function_that_never_returns(self):
        over = threading.Event()

        @P.NativeFunction(timeout=0.1)
        def Hang(text: str) -> str:
            over.wait()
            return text

        hanging = Echo(Hang("x"))
        with pytest.raises(NativeCallFailed, match=r"no result came within its timeout of 0\.1 s"):
            hanging.get(timeout=30)
        over.set()

    def test_a_native_function_that_returns_nothing(self):
        @P.NativeFunction
        def Forget(text: str) -> None: ...

        with pytest.raises(NativeCallFailed, match="returned nothing"):
            Forget("x").get()

    def test_a_failure_that_is_tried_again(self):
        answers: Iterator[str] = iter(())

        @P.NativeFunction
        def Flaky(text: str) -> str:
            return next(answers)

        below = Echo(Flaky("x"))
        with pytest.raises(NativeCallFailed):
            below.get()
        answers = iter(["at last"])
        below.retry()
        assert below.get() == Echo("at last").get()

    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_waiting_for_what_does_not_come(self, timeout: float):
        task = P.SemanticVariable(name="task")
        said = Echo(task)
        for wait in (said.get, lambda **options: P.gather(said, **options)):
            with pytest.raises(GetTimeout, match="nothing was cancelled"):
                wait(timeout=timeout)
        task.set("x")
        assert said.get()

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_waiting_for_no_length_of_time(self, timeout: float):
        with pytest.raises(DeclarationError, match="timeout"):
            Echo("x").get(timeout=timeout)

    def test_asking_for_what_is_no_criteria(self):
        with pytest.raises(DeclarationError, match="'FAST' is not one of LATENCY"):
            Echo("x").get(perf="FAST")

    def test_reading_after_the_session_ended(self):
        with P.Session():
            read, unread = Echo("x"), Echo(P.SemanticVariable(name="never"))
            text = read.get()
        assert read.get() == text
        with pytest.raises(Cancelled, match="ended before 'said' was read"):
            unread.get()

    def test_text_that_is_no_unicode(self):
        bad, good = Echo("\ud83d"), Echo("x")
        with pytest.raises(DeclarationError, match="lone surrogate"):
            bad.get()
        assert good.get()

    @pytest.mark.parametrize("text", ["", " ", "\0", "🦜 naïve 日本語 \u202e", "{{input:x}}", "<|end|>"], ids=ascii)
    def test_odd_text_is_no_bad_input(self, text: str):
        assert Echo(text).get()

    def test_gathering_what_is_not_there(self):
        assert P.gather() == P.gather([]) == []
        with pytest.raises(TypeError, match="not str"):
            P.gather("text")

    def test_get_within_a_running_event_loop(self):
        async def main() -> str:
            return Echo("x").get()

        assert asyncio.run(main()) == Echo("x").get()
