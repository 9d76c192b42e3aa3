"""Native functions that run in the service's sandbox: their source and arguments travel, and nothing comes back."""

from pathlib import Path

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.protocol import ListArgument, ObjectArgument, SandboxSpec, ValueArgument, VariableArgument
from parrotserve.sdk.session import current_session


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@P.NativeFunction(server=True, timeout=0.5)
def Join(texts: list[str], mark: str = "+", *, more: object = None) -> str:
    """Puts texts together."""
    return mark.join(texts)


class TestInTheSandbox:
    def sent(self, service: FakeService) -> SandboxSpec:
        (call,) = service.submits[0].calls
        assert call.sandbox is not None
        return call.sandbox

    def test_its_source_travels_and_nothing_comes_back(self, service: FakeService):
        assert Write(Join([Write("x"), "y"])).get() == "<text>"
        assert len(service.submits) == 1
        assert "calls" not in service.log
        sent = self.sent(service)
        assert sent.source.startswith("def Join(texts")
        assert (sent.name, sent.file) == ("Join", "test_native_sandbox.py")
        assert sent.source.endswith("return mark.join(texts)")
        assert Path(__file__).read_text().splitlines()[sent.line - 1].startswith("def Join(")

    def test_arguments_are_constants_and_variables_wherever_they_are(self, service: FakeService):
        text = Write("x")
        Join({"a": [text, 1]}, more=(1.5, None, True, ("x",))).get()
        (call,) = service.submits[0].calls
        variable = VariableArgument(variable=call.inputs[0])
        assert len(call.inputs) == 1
        assert call.timeout == 0.5
        assert self.sent(service).arguments == {
            "texts": ObjectArgument(entries={"a": ListArgument(items=(variable, ValueArgument(value=1)))}),
            "mark": ValueArgument(value="+"),
            "more": ValueArgument(value=[1.5, None, True, ["x"]]),
        }

    def test_a_text_that_was_set_is_a_variable_too(self, service: FakeService):
        assert Join(P.SemanticVariable("known")).get() == "<Join>"
        assert [variable.value for variable in service.submits[0].variables] == ["known", None]

    @pytest.mark.parametrize("argument", [object(), {1: "x"}, [{"a", "b"}], float("nan"), b"bytes"])
    def test_what_json_does_not_have_is_refused_at_the_call(self, service: FakeService, argument: object):
        with pytest.raises(
            TypeError, match=r"^Join\(texts, mark, more\): more: the sandbox takes texts, numbers, lists"
        ):
            Join(["x"], more=argument)
        current_session().sync()
        assert service.submits == []

    def test_the_python_function_is_still_there_to_be_tested(self):
        assert Join.function(["a", "b"]) == "a+b"
