"""Outputs whose schema is a type: what `get` gives is an object of it."""

import dataclasses
import enum
import json
from typing import Any, Literal

import pytest
from fake_service import FakeService
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

import Parrot as P
from parrotserve.errors import InvalidOutput, InvalidSchema
from parrotserve.protocol import OutputSegment
from parrotserve.sampling import FinishReason
from parrotserve.sdk.typed import TypedSchema


class Point(BaseModel):
    x: int
    y: int = 0


@dataclasses.dataclass
class Spot:
    x: int


class Place(TypedDict):
    x: int


class Colour(enum.Enum):
    RED = "red"


@P.SemanticFunction(schema=Point)
def locate(what: str):
    """{{input:what}}{{output:point}}"""


def test_get_gives_an_object_and_everything_else_the_text(service: FakeService):
    service.script = {"locate": '{"x": 1}'}
    point = locate("it")
    assert point.get() == Point(x=1)
    assert str(point) == '{"x": 1}'
    assert "".join(point.stream()) == '{"x": 1}'


async def test_all_ways_of_getting_give_objects(service: FakeService):
    service.script = {"locate": '{"x": 1, "y": 2}'}
    point = Point(x=1, y=2)
    text = P.SemanticVariable("text")
    assert await locate("it").aget() == point
    assert await P.agather(locate("it"), text) == [point, "text"]
    assert P.gather(text, [locate("it")]) == ["text", point]


def test_an_output_shows_its_sampling():
    assert repr(P.Output()) == "Output()"
    assert repr(P.Output(max_tokens=3)).startswith("Output(Sampling(max_tokens=3, ")


def test_every_get_gives_an_object_of_its_own(service: FakeService):
    service.script = {"locate": '{"x": 1}'}
    point = locate("it")
    point.get().x = 5
    assert point.get().x == 1


def test_the_service_is_told_the_schema(service: FakeService):
    service.script = {"locate": '{"x": 1}'}
    locate("it").get()
    (request,) = service.requests.values()
    (output,) = [each for each in request.segments if isinstance(each, OutputSegment)]
    told = Point.model_json_schema() | {"additionalProperties": False}
    assert output.sampling.schema == told
    assert json.loads(request.model_dump_json())["segments"][-1]["sampling"]["schema"] == told


def test_properties_that_nobody_asked_for_are_not_written():
    class Line(BaseModel):
        start: Point
        tags: dict[str, int]

    class Open(BaseModel, extra="allow"):
        x: int

    schema = TypedSchema(Line)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Point"]["additionalProperties"] is False
    assert schema["properties"]["tags"]["additionalProperties"] == {"type": "integer"}
    assert TypedSchema(Open)["additionalProperties"] is True


def test_whoever_reads_the_variable_reads_the_text(service: FakeService):
    service.script = {"locate": '{"x": 1}', "report": lambda text: f"read {text}"}
    seen: list[Any] = []

    @P.SemanticFunction
    def report(point: P.SemanticVariable):
        """{{input:point}}{{output:line}}"""

    @P.NativeFunction
    def look(text: str) -> str:
        seen.append(text)
        return "looked"

    point = locate("it")
    assert P.gather(report(point), look(point)) == ['read {"x": 1}', "looked"]
    assert seen == ['{"x": 1}']


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Spot, '{"x": 1}', Spot(1)),
        (Place, '{"x": 1}', {"x": 1}),
        (list[Point], '[{"x": 1}]', [Point(x=1)]),
        (Literal["a", "b"], '"a"', "a"),
        (Colour, '"red"', Colour.RED),
        (int, "5", 5),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Point | None, "null", None),
    ],
    ids=str,
)
def test_any_type_that_pydantic_can_describe_will_do(service: FakeService, kind: Any, text: str, value: Any):
    service.script = {"make": text}

    @P.SemanticFunction(schema=kind)
    def make(what: str):
        """{{input:what}}{{output:it}}"""

    assert make("it").get() == value


def test_a_schema_that_is_data_gives_text(service: FakeService):
    service.script = {"choose": '"yes"'}

    @P.SemanticFunction(schema={"enum": ["yes", "no"]})
    def choose(what: str):
        """{{input:what}}{{output:it}}"""

    assert choose("it").get() == '"yes"'


def test_every_output_has_a_type_of_its_own(service: FakeService):
    @P.SemanticFunction(outputs={"spot": P.Output(schema=Spot, max_tokens=9)})
    def both(what: str, point: P.Output(schema=Point)):  # pyright: ignore[reportInvalidTypeForm]
        """{{what}}{{point}}{{output:spot}}{{output:text}}"""

    assert both.samplings["spot"].max_tokens == 9
    assert isinstance(both.samplings["point"].schema, TypedSchema)
    assert isinstance(both.samplings["spot"].schema, TypedSchema)
    assert both.samplings["text"].schema is None


def test_a_conversation_may_be_asked_for_an_object(service: FakeService):
    service.script = {"Chat": '{"x": 3}'}
    assert P.Chat().say("Where?", schema=Point).get() == Point(x=3)


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("it is odd")
        return number


@pytest.mark.parametrize(
    ("text", "says"),
    [('{"number": 3}', "number: Value error, it is odd"), ('{"number": 2', "Invalid JSON"), ("", "Invalid JSON")],
)
def test_a_text_that_is_no_such_object(service: FakeService, text: str, says: str):
    service.script = {"pick": text}

    @P.SemanticFunction(schema=Even)
    def pick(what: str):
        """{{input:what}}{{output:even}}"""

    variable = pick("it")
    for get in (variable.get, lambda: P.gather(variable)):
        with pytest.raises(InvalidOutput, match=f"'even' is no Even: {says}") as failed:
            get()
        assert failed.value.details == {"output": "even"}
        assert failed.value.__cause__ is not None
    assert str(variable) == text
    assert not variable.failed


def test_a_text_that_was_cut_off_says_what_to_do():
    with pytest.raises(InvalidOutput, match="by max_tokens"):
        TypedSchema(Point).parse('{"x": 1', output="point", reason=FinishReason.LENGTH)


@pytest.mark.parametrize(("kind", "text"), [(int, "-10"), (float, "1.5"), (float, "1e3"), (int | None, "5")], ids=str)
def test_a_number_that_was_cut_off_may_be_another(kind: Any, text: str):
    schema = TypedSchema(kind)
    with pytest.raises(InvalidOutput, match=f"{text} may be its beginning.*by max_tokens") as failed:
        schema.parse(text, output="n", reason=FinishReason.LENGTH)
    assert failed.value.details == {"output": "n"}
    assert schema.parse(text, output="n", reason=FinishReason.STOP) == float(text)
    assert schema.parse(text, output="n", reason=None) == float(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (bool, "true", True),
        (int | None, "null", None),
        (list[int], "[1]", [1]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (str, '"1"', "1"),
        (int, "5\n", 5),
    ],
    ids=str,
)
def test_what_is_complete_may_have_reached_its_last_token(kind: Any, text: str, value: Any):
    assert TypedSchema(kind).parse(text, output="it", reason=FinishReason.LENGTH) == value


@pytest.mark.parametrize(
    "kind", [object(), "Point", 5, [Point], type("Odd", (), {})], ids=lambda kind: type(kind).__name__
)
def test_what_is_no_type_of_data_fails_at_the_declaration(kind: Any):
    with pytest.raises(InvalidSchema, match="such as a pydantic model"):

        @P.SemanticFunction(schema=kind)
        def make(what: str):  # pyright: ignore[reportUnusedFunction]
            """{{input:what}}{{output:it}}"""
