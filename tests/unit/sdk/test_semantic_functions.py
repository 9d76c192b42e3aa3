"""Semantic functions: what they declare, and what a call sends."""

import inspect
import io
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated

import pytest
from fake_service import FakeService, prompt

import Parrot as P
from parrotserve.errors import (
    DeclarationError,
    GetTimeout,
    InvalidSampling,
    InvalidSchema,
    TemplateError,
)
from parrotserve.protocol import OutputSegment, RequestSpec, RoleSegment
from parrotserve.segments import Role


@dataclass
class Holder:
    """Something that shows what it holds."""

    what: object


class Later:
    """Something to await."""

    def __await__(self) -> Generator[None, None, str]:
        yield
        return "x"


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


def only_request(service: FakeService) -> RequestSpec:
    (request,) = service.requests.values()
    return request


def sampling_of(service: FakeService, number: int = 0) -> P.Sampling:
    """As it was declared, without the seed that was drawn for the call."""
    segments = [each for each in only_request(service).segments if isinstance(each, OutputSegment)]
    return replace(segments[number].sampling, seed=None)


class TestCalls:
    def test_the_published_program_is_one_exchange(self, service: FakeService):
        task = P.SemanticVariable("a snake game")
        code = WritePythonCode(task)
        test = WriteTestCode(task, code)
        assert P.gather(code, test) == ["<code>", "<test>"]
        (body,) = service.submits
        task_spec, code_spec, test_spec = body.variables
        assert body.model_dump(exclude_defaults=True) == {
            "session": body.session,
            "variables": (
                {"id": task_spec.id, "value": "a snake game"},
                {"id": code_spec.id, "name": "code"},
                {"id": test_spec.id, "name": "test"},
            ),
            "requests": (
                {
                    "id": body.requests[0].id,
                    "function": "WritePythonCode",
                    "segments": (
                        {"text": "You are an expert software engineer.\nWrite python code of "},
                        {"variable": task_spec.id},
                        {"text": ".\nCode: "},
                        {"variable": code_spec.id},
                    ),
                },
                {
                    "id": body.requests[1].id,
                    "function": "WriteTestCode",
                    "segments": (
                        {"text": "You are an experienced QA engineer.\nYou write test code for "},
                        {"variable": task_spec.id},
                        {"text": ".\nCode: "},
                        {"variable": code_spec.id},
                        {"text": ".\nYour test code: "},
                        {"variable": test_spec.id},
                    ),
                },
            ),
            "wait": ({"variable": code_spec.id}, {"variable": test_spec.id}),
        }
        kinds = [segment.kind for segment in body.requests[0].segments]
        assert kinds == ["text", "input", "text", "output"]

    def test_a_call_returns_before_anything_is_sent(self, service: FakeService):
        variable = WritePythonCode("a game")
        assert (repr(variable), service.submits) == ("<SemanticVariable code PRODUCING>", [])

    def test_several_outputs_are_a_named_tuple_of_one_request(self, service: FakeService):
        @P.SemanticFunction
        def Joke(topic: str):
            """A joke about {{input:topic}}: {{output:joke}} Explained: {{output:explanation}}"""

        result = Joke("parrots")
        assert result._fields == ("joke", "explanation")
        assert P.gather(result) == ["<joke>", "<explanation>"]
        assert prompt(service, only_request(service)) == "A joke about [parrots]: {joke} Explained: {explanation}"

    def test_arguments_that_are_no_variables_are_rendered_with_str(self, service: FakeService):
        @P.SemanticFunction
        def Count(n: int, what: str = "parrots", *, style: object = None):
            """{{input:n}} {{input:what}} {{input:style}}: {{output:text}}"""

        Count(3, style=1.5).get()
        assert prompt(service, only_request(service)) == "[3] [parrots] [1.5]: {text}"

    def test_variables_of_a_list_follow_one_another(self, service: FakeService):
        @P.SemanticFunction
        def Merge(parts: list[P.SemanticVariable]):
            """Merge {{input:parts | strip}}: {{output:whole}}"""

        Merge([WritePythonCode("x"), "between", P.SemanticVariable("last")]).get()
        merge = next(each for each in service.requests.values() if each.function == "Merge")
        assert prompt(service, merge) == "Merge [<code>]\n\n[between]\n\n[last]: {whole}"

    def test_lists_without_variables_are_plain_values(self, service: FakeService):
        WritePythonCode([1, 2]).get()
        assert "[[1, 2]]" in prompt(service, only_request(service))

    def test_lists_in_lists_are_read_in_order(self, service: FakeService):
        WritePythonCode([["a", P.SemanticVariable("b")], "c"]).get()
        assert "[a]\n\n[b]\n\n[c]" in prompt(service, only_request(service))

    @pytest.mark.parametrize(
        ("argument", "advice"),
        [
            (lambda: WritePythonCode, "call it, and pass the result"),
            (lambda: str.upper, "call it, and pass the result"),
            (lambda: FakeService, "call it, and pass the result"),
            (lambda: P.SemanticVariable("x").stream(), "pass what it yields"),
            (Later, "await it, and pass the result"),
            (io.StringIO, "read it, and pass what is in it"),
        ],
    )
    def test_what_somebody_forgot_to_call_or_to_await_has_no_text(
        self, service: FakeService, argument: Callable[[], object], advice: str
    ):
        with pytest.raises(TypeError, match=f"task is <.*, which is not a text; {advice}"):
            WritePythonCode(argument())
        with pytest.raises(TypeError, match=f"The value of a variable is <.*, which is not a text; {advice}"):
            P.SemanticVariable(argument())

    @pytest.mark.parametrize("argument", [b"caf\xc3\xa9", bytearray(b"x")])
    def test_bytes_are_to_be_decoded(self, service: FakeService, argument: object):
        with pytest.raises(TypeError, match=r"task is b.*, which is not a text; decode it"):
            WritePythonCode(argument)
        with pytest.raises(TypeError, match=r"What it is set to is b.*; decode it"):
            P.SemanticVariable(name="later").set(argument)

    @pytest.mark.parametrize("argument", [PurePosixPath("a.txt"), 1.5, Holder("x")])
    def test_what_has_a_text_of_its_own_is_taken_by_it(self, service: FakeService, argument: object):
        WritePythonCode(argument).get()
        assert f"[{argument}]" in prompt(service, only_request(service))

    @pytest.mark.parametrize("wrap", [lambda each: {"a": each}, lambda each: {each}, lambda each: {"a": [each]}])
    def test_variables_do_not_hide_in_other_containers(self, service: FakeService, wrap):
        with pytest.raises(TypeError, match=r"task: a (dict|set) with semantic variables in it is not a text"):
            WritePythonCode(wrap(P.SemanticVariable("x")))

    @pytest.mark.parametrize(
        "text",
        [
            Holder,
            lambda variable: f"{[variable]}",
            lambda variable: f"{variable!r}",
            lambda variable: json.dumps({"holds": str(Holder(variable))}),
        ],
    )
    @pytest.mark.parametrize("variable", [lambda: WritePythonCode("x"), lambda: P.SemanticVariable('it\'s "x"', "y")])
    def test_nor_in_the_texts_of_objects(
        self, service: FakeService, text: Callable[[object], object], variable: Callable[[], P.SemanticVariable]
    ):
        told = r"representation in its text, <SemanticVariable .*>: pass the variable itself"
        with pytest.raises(TypeError, match=f"^task: there is a variable's {told}"):
            WritePythonCode(text(variable()))
        with pytest.raises(TypeError, match=told):
            P.SemanticVariable(text(variable()))
        with pytest.raises(TypeError, match=told):
            P.SemanticVariable(name="later").set(text(variable()))
        with pytest.raises(TypeError, match=told):
            P.Chat().say(text(variable()))  # pyright: ignore[reportArgumentType]

    def test_texts_about_variables_are_texts(self, service: FakeService):
        with pytest.raises(GetTimeout) as failed:
            P.SemanticVariable(name="never").get(timeout=0)
        for text in (failed.value.message, "What is <SemanticVariable somebody_else's PRODUCING>?"):
            WritePythonCode(text).get()
            assert text in prompt(service, only_request(service))
            service.requests.clear()

    def test_a_variable_used_twice_is_declared_once(self, service: FakeService):
        task = P.SemanticVariable("x")
        P.gather(WritePythonCode(task), WritePythonCode(task))
        assert [each.value for each in service.submits[0].variables] == ["x", None, None]

    def test_wrong_arguments_are_a_type_error_that_names_the_function(self, service: FakeService):
        with pytest.raises(TypeError, match=r"WritePythonCode\(task\): missing a required argument: 'task'"):
            WritePythonCode()
        with pytest.raises(TypeError, match=r"no parameter 'tsk'; did you mean 'task'\?"):
            WritePythonCode(tsk="y")
        with pytest.raises(TypeError, match=r"no parameter 'tsk'; did you mean 'task'\?"):
            WritePythonCode("x", tsk="x")

    def test_roles_travel(self, service: FakeService):
        @P.SemanticFunction(model="tiny", chat=False)
        def Ask(question: str):
            """{{role:system}} Be brief. {{role:user}} {{input:question}} {{role:assistant}} {{output:answer}}"""

        Ask("why?").get()
        request = only_request(service)
        roles = [each.role for each in request.segments if isinstance(each, RoleSegment)]
        assert (roles, request.model, request.chat) == ([Role.SYSTEM, Role.USER, Role.ASSISTANT], "tiny", False)


class TestSampling:
    def test_defaults(self, service: FakeService):
        WritePythonCode("x").get()
        assert sampling_of(service) == P.Sampling(temperature=0.0, max_tokens=256)
        assert only_request(service).model is None
        assert only_request(service).chat

    def test_options_hold_for_all_outputs_but_those_with_their_own(self, service: FakeService):
        @P.SemanticFunction(max_tokens=5, stop="\n", temperature=0.5, outputs={"b": P.Sampling(top_k=3)})
        def Two(x: str):
            """{{input:x}}{{output:a}}{{output:b}}"""

        P.gather(Two("x"))
        assert sampling_of(service, 0) == P.Sampling(max_tokens=5, stop=("\n",), temperature=0.5)
        assert sampling_of(service, 1) == P.Sampling(top_k=3)

    def test_a_sampling_made_by_hand_may_have_one_stop_text(self, service: FakeService):
        @P.SemanticFunction(outputs={"y": P.Sampling(stop="END")})  # pyright: ignore[reportArgumentType]
        def One(x: str):
            """{{input:x}}{{output:y}}"""

        One("x").get()
        assert sampling_of(service).stop == ("END",)

    @pytest.mark.parametrize(
        ("options", "kind", "said"),
        [
            ({"max_tokens": 0}, InvalidSampling, "max_tokens must be at least 1"),
            ({"max_tokens": -3}, InvalidSampling, "max_tokens must be at least 1"),
            ({"max_tokens": "5"}, InvalidSampling, "max_tokens='5' has the wrong type"),
            ({"max_tokens": 5.5}, InvalidSampling, "max_tokens=5.5 has the wrong type"),
            ({"model": 5}, DeclarationError, "model=5: model must be a name or path"),
            ({"temperature": float("nan")}, InvalidSampling, "temperature must be"),
            ({"stop": [3]}, InvalidSampling, "stop must be a text or several"),
            ({"stop": 3}, InvalidSampling, "stop=3: stop must be a text or several, not int"),
            ({"stop": ""}, InvalidSampling, "must not hold an empty text"),
            ({"schema": "object"}, InvalidSchema, "a dict or a type, such as a pydantic model"),
            ({"schema": {"a": object()}}, InvalidSchema, "not JSON"),
            ({"max_token": 5}, DeclarationError, "no option 'max_token'; did you mean 'max_tokens'?"),
            ({"outputs": {"z": P.Sampling()}}, TemplateError, "outputs= names 'z'"),
            ({"outputs": {"y": {"top_k": 1}}}, TemplateError, "must be a P.Sampling"),
        ],
    )
    def test_bad_options_fail_at_the_declaration(self, options: dict[str, object], kind: type[Exception], said: str):
        def Declared(x: str):
            """{{input:x}}{{output:y}}"""

        with pytest.raises(kind, match=said.replace("?", r"\?")):
            P.SemanticFunction(**options)(Declared)  # pyright: ignore[reportArgumentType, reportCallIssue]


class TestAnnotations:
    def test_outputs_are_no_arguments(self, service: FakeService):
        @P.SemanticFunction(max_tokens=9)
        def Joke(topic: P.Input, joke: P.Output(temperature=0.5), why: P.Output):
            """Joke about {{topic}}: {{joke}} Explain: {{why}}"""

        P.gather(Joke(topic="parrots"))
        assert str(inspect.signature(Joke)).startswith("(topic")
        assert "joke" not in inspect.signature(Joke).parameters
        assert (sampling_of(service, 0), sampling_of(service, 1)) == (
            P.Sampling(temperature=0.5),
            P.Sampling(max_tokens=9),
        )

    def test_annotations_may_be_text_or_annotated(self, service: FakeService):
        def Joke(topic: "P.Input", joke: "P.Output(top_k=3)", why: Annotated[P.Output, P.Sampling(top_k=4)]):
            """Joke about {{topic}}: {{output:joke}} {{why}}"""

        P.gather(P.SemanticFunction(Joke)("parrots"))
        assert (sampling_of(service, 0).top_k, sampling_of(service, 1).top_k) == (3, 4)

    def test_names_that_only_type_checkers_know_are_plain_inputs(self, service: FakeService):
        def Ask(topic: "Unknown"):  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
            """{{topic}} {{output:y}}"""

        assert P.SemanticFunction(Ask)("x").get() == "<y>"

    def test_an_output_must_appear(self):
        def Joke(topic: P.Input, joke: P.Output):
            """{{topic}} {{output:other}}"""

        with pytest.raises(TemplateError, match="the output 'joke' is not in the docstring"):
            P.SemanticFunction(Joke)

    def test_two_samplings_for_one_output_are_refused(self):
        def Joke(topic: P.Input, joke: P.Output(top_k=1)):  # pyright: ignore[reportInvalidTypeForm]
            """{{topic}} {{joke}}"""

        with pytest.raises(TemplateError, match="a sampling in its annotation and another"):
            P.SemanticFunction(outputs={"joke": P.Sampling()})(Joke)


class TestDeclarations:
    def test_it_looks_like_the_function(self):
        assert WriteTestCode.__name__ == "WriteTestCode"
        assert list(inspect.signature(WriteTestCode).parameters) == ["task", "code"]
        assert inspect.unwrap(WriteTestCode) is WriteTestCode.__wrapped__
        assert repr(WriteTestCode) == "<SemanticFunction WriteTestCode(task, code) -> test>"

    def test_a_docstring_is_needed(self):
        def Silent(x: str): ...

        with pytest.raises(TemplateError, match=r"Silent \(.*\): it has no docstring"):
            P.SemanticFunction(Silent)

    def test_parameters_need_names(self):
        def Many(*texts: str):
            """{{output:y}}"""

        with pytest.raises(TemplateError, match="cannot be filled in a prompt"):
            P.SemanticFunction(Many)

    def test_methods_are_told_what_to_be(self):
        with pytest.raises(
            TemplateError, match=r"Bird.sing .*methods are not supported.*leave it out .* @staticmethod"
        ):

            class Bird:  # pyright: ignore[reportUnusedClass]
                @P.SemanticFunction
                def sing(self, song):
                    """{{input:song}}{{output:notes}}"""

    def test_a_function_of_a_class_is_a_static_method(self, service: FakeService):
        class Bird:
            @staticmethod
            @P.SemanticFunction
            def sing(song):
                """{{input:song}}{{output:notes}}"""

        assert (Bird.sing("x").get(), Bird().sing("y").get()) == ("<notes>", "<notes>")

    @pytest.mark.parametrize("wrap", [staticmethod, classmethod])
    def test_above_other_decorators_of_methods(self, wrap: Callable[..., Callable[..., object]]):
        with pytest.raises(DeclarationError, match="write @staticmethod above @SemanticFunction"):

            @P.SemanticFunction
            @wrap
            def sing(song):  # pyright: ignore[reportUnusedFunction]
                """{{input:song}}{{output:notes}}"""

    def test_it_decorates_functions(self):
        with pytest.raises(DeclarationError, match="decorates a function, not 'tiny'"):
            P.SemanticFunction("tiny")  # pyright: ignore[reportCallIssue, reportArgumentType]
