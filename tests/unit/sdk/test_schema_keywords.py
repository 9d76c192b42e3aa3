"""Keywords of a schema that are nearly known are warned of, once, where the schema was written."""

import warnings
from typing import Any

import pytest
from fake_service import FakeService
from pydantic import BaseModel

import Parrot as P


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"propertes": {}}, "has 'propertes', which is not a keyword .* did you mean 'properties'"),
        ({"Type": "object"}, "'Type', .* did you mean 'type'"),
        ({"additional_properties": False}, "did you mean 'additionalProperties'"),
        ({"properties": {"bird": {"enums": ["owl"]}}}, r"'enums' at properties\.bird, .* did you mean 'enum'"),
        ({"anyOf": [{}, {"maxlength": 3}]}, r"'maxlength' at anyOf\[1\], .* did you mean 'maxLength'"),
        ({"items": {"ref": "#/$defs/x"}, "$defs": {"x": {}}}, r"'ref' at items, .* did you mean '\$ref'"),
        ({"$defs": {"x": {"require": ["a"]}}}, r"'require' at \$defs\.x, .* did you mean 'required'"),
    ],
)
def test_what_was_meant_is_told(schema: dict[str, Any], told: str):
    with pytest.warns(UserWarning, match=told) as warned:
        P.Output(schema=schema)
    assert [each.filename for each in warned] == [__file__]


@pytest.mark.parametrize(
    "schema",
    [
        {"x-enum": 3, "unit": "cm", "propertyOrdering": ["a"], "nullable": True},
        {"properties": {"typ": {}, "propertes": {}}, "patternProperties": {"enums": {}}},
        {"enum": [{"typ": 1}], "const": {"requird": 1}, "default": {"itemz": 1}, "examples": [{"formt": 1}]},
        {"items": [{"type": "integer"}], "additionalItems": False, "dependencies": {"a": ["b"]}},
        {"type": "array", "items": True},
    ],
)
def test_words_of_ones_own_names_and_data_are_none(schema: dict[str, Any]):
    P.Output(schema=schema)  # warnings are errors here


def test_pydantic_writes_none():
    class Bird(BaseModel):
        name: str
        size: float | None = None
        likes: dict[str, list[int]] = {}

    P.Output(schema=Bird.model_json_schema())


def test_it_is_told_once(service: FakeService):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")

        @P.SemanticFunction(schema={"typ": "object"}, outputs={"two": P.Sampling(schema={"typ": "array"})})
        def tell(x: str):
            """{{input:x}} {{output:one}} {{output:two}}"""

        tell("x")
        P.Chat(schema={"typ": "string"}).say("x")
    assert len(told) == 3
    assert {each.filename for each in told} == {__file__}
