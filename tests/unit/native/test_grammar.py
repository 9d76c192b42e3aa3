"""Outputs that satisfy a JSON schema."""

import json
from typing import Any

import numpy as np
import pytest
from llguidance import LLTokenizer
from token_backend import VOCABULARY, Bench, fill, generate

from parrotserve.engines.fake_tokenizer import END, FakeTokenizer
from parrotserve.engines.native.grammar import Grammar
from parrotserve.engines.schema import check_schema
from parrotserve.errors import InvalidSchema
from parrotserve.sampling import FinishReason

TOKENIZER = LLTokenizer(FakeTokenizer().to_json(), eos_token=[END])
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def allowed(grammar: Grammar) -> set[int]:
    return {token for token, may in enumerate(grammar.allowed(VOCABULARY)) if may}


def test_only_what_the_schema_lets_follow_is_allowed():
    grammar = Grammar({"enum": ["yes", "no"]}, TOKENIZER)
    grammar.push(ord('"'))
    assert allowed(grammar) == {ord("y"), ord("n")}


def test_a_value_that_cannot_go_on_is_complete():
    grammar = Grammar({"const": 7}, TOKENIZER)
    assert not grammar.complete
    grammar.push(ord("7"))
    assert grammar.complete


def test_a_value_that_may_go_on_may_also_end():
    grammar = Grammar({"type": "integer"}, TOKENIZER)
    grammar.push(ord("7"))
    assert not grammar.complete
    assert {END, ord("7")} <= allowed(grammar)


def test_white_space_between_the_parts_of_a_value_comes_to_an_end():
    grammar = Grammar({"type": "array"}, TOKENIZER)
    grammar.push(ord("["))
    spaces = 0
    while ord(" ") in allowed(grammar):
        grammar.push(ord(" "))
        spaces += 1
    assert 8 <= spaces <= 20


def test_tokens_fit_as_far_as_the_schema_goes_and_something_comes_after_them():
    grammar = Grammar({"enum": ["yes", "no"]}, TOKENIZER)
    for text, fitting in (('"ye', 3), ('"yx', 2), ('"yes"', 4), ('"yes"!', 4), ("!", 0), ("", 0)):
        assert grammar.fitting([*text.encode()]) == fitting
    assert allowed(grammar) == {ord('"')}
    assert Grammar({"type": "integer"}, TOKENIZER).fitting([ord("7"), END]) == 1


def test_what_may_come_after_tokens_that_did_not_come_yet():
    grammar = Grammar({"enum": ["yes", "no"]}, TOKENIZER)
    along = [{*np.flatnonzero(mask).tolist()} for mask in grammar.allowed_along([*b'"y'], VOCABULARY)]
    assert along == [{ord('"')}, {ord("y"), ord("n")}, {ord("e")}]
    assert len(grammar.allowed_along([*b'"!y'], VOCABULARY)) == 2
    assert allowed(grammar) == {ord('"')}


def test_tokens_beyond_the_tokenizers_vocabulary_are_never_allowed():
    assert not Grammar({"type": "string"}, TOKENIZER).allowed(VOCABULARY + 50)[VOCABULARY:].any()


def test_a_forbidden_token_is_an_error():
    with pytest.raises(InvalidSchema):
        Grammar({"const": 7}, TOKENIZER).push(ord("8"))


@pytest.mark.parametrize(
    "schema", [{"type": "nonsense"}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "(["}, {"enum": {1, 2}}]
)
def test_schemas_that_cannot_be_enforced_are_refused_with_a_reason(schema: dict[str, Any]):
    with pytest.raises(InvalidSchema, match=r"schema .+: .+|schema is not a JSON object"):
        check_schema(schema)


def test_schemas_that_can_be_enforced_are_accepted():
    check_schema(PERSON)
    check_schema({})


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"items": inner}
    return inner


DECOYS: dict[str, Any] = {"$defs": {f"d{place}": {} for place in range(101)}}
"""What the references of a chain would lead to if they were places in the whole schema."""


def chain(length: int, *, end: dict[str, Any], letter: str = "d") -> dict[str, Any]:
    """Objects, each with one of the next kind in it."""
    inner = (
        {"type": "object", "properties": {"x": {"$ref": f"#/$defs/{letter}{place + 1}"}}} for place in range(length)
    )
    return {"$ref": f"#/$defs/{letter}0", "$defs": {f"d{place}": kind for place, kind in enumerate([*inner, end])}}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (chain(1000, end={}), "nested too deeply"),
        ({"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(9000)}, "$ref": "#/$defs/d0"}, "too deeply"),
        (nested(500), "nested too deeply"),
        ({"type": "integer", "multipleOf": 99_999_989}, "multipleOf"),
        ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "multipleOf"),
        ({"multipleOf": 1e300}, "multipleOf"),
        ({"$ref": "#"}, "refers to itself without end: # leads to #"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#"}]}}},
         "refers to itself without end"),
        ({"anyOf": [{"$ref": f"#{n}"} for n in range(100)]}, "references that are not plain paths"),
        ({"anyOf": [{"$ref": f"#{n}"} for n in range(30)], "$defs": nested(20)}, "references that are not plain paths"),
        ({"allOf": [{"$id": f"{n}", "$ref": "#/x"} for n in range(64)]}, "references that are not plain paths"),
        ({**DECOYS, "items": {"$id": "http://x/", **chain(100, end={})}}, "references that are not plain paths"),
        ({"items": chain(100, end={}, letter="%64")} | {"$defs": {"%64" + d[1:]: {} for d in DECOYS["$defs"]}},
         "references that are not plain paths"),
    ],
)  # fmt: skip
def test_schemas_that_would_take_too_much_are_refused_before_anything_compiles_them(
    schema: dict[str, Any], reason: str
):
    with pytest.raises(InvalidSchema, match=reason):
        check_schema(schema)


def test_what_programs_declare_is_far_from_that():
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "value": {"type": "integer"}},
    }
    for schema in (tree, chain(50, end={"type": "integer"}), chain(5, end={"$ref": "#/$defs/d2"}),
                   {"type": "number", "multipleOf": 0.01}, {"multipleOf": 0.00001}, {"multipleOf": 3600}):  # fmt: skip
        check_schema(schema)
        assert allowed(Grammar(schema, TOKENIZER))


def wide(optional: int, **more: Any) -> dict[str, Any]:
    properties = {f"p{number:03}": {"type": "integer"} for number in range(optional)}
    return {"type": "object", "properties": properties, **more}


def test_properties_of_which_each_may_come_next_are_as_many_as_the_library_takes():
    grammar = Grammar(wide(480, patternProperties={"^x": {}}), TOKENIZER)
    for token in b'{"p001":1,"p4':
        assert grammar.allowed(VOCABULARY)[token]
        grammar.push(token)
    check_schema(wide(1500, required=[f"p{number:03}" for number in range(0, 1500, 400)]))
    referred = {"$ref": "#/$defs/a", "$defs": {"a": wide(481)}}
    for schema in (wide(481), {"items": wide(600, required=["p050"])}, referred):
        with pytest.raises(InvalidSchema, match="480 properties in a row"):
            check_schema(schema)


def text(number: int, **more: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f".*{chr(97 + number % 26)}{number}.*", **more}


def object_of(number: int) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": text(number)}}


def all_of(*schemas: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"allOf": [*schemas], **more}


@pytest.mark.parametrize(
    "schema",
    [
        all_of(*map(text, range(5))),
        all_of(*map(text, range(4)), type="string", format="date-time"),
        all_of(all_of(text(0), text(1)), all_of(text(2), all_of(text(3), text(4)))),
        {"$ref": "#/$defs/0", "$defs": {f"{n}": text(n, **{"$ref": f"#/$defs/{n + 1}"}) for n in range(5)} | {"5": {}}},
        all_of(*({"anyOf": [{"type": "integer"}, text(n)]} for n in range(5))),
        all_of(*map(object_of, range(5))),
        all_of(*map(object_of, range(4)), {"additionalProperties": text(4)}),
        all_of(*({"patternProperties": {"^x": text(n)}} for n in range(5))),
        all_of(*({"type": "array", "items": text(n)} for n in range(4)), {"prefixItems": [text(4)]}),
        {"items": all_of(*({"properties": {"y": object_of(n)}} for n in range(5)))},
    ],
)
def test_patterns_for_one_text_are_refused_before_anything_makes_one_of_many(schema: dict[str, Any]):
    with pytest.raises(InvalidSchema, match="4 patterns and formats may apply to one text"):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        all_of(*({"$ref": f"#a{n}"} for n in range(5)),
               **{"$defs": {f"{n}": text(n, **{"$anchor": f"a{n}"}) for n in range(5)}}),
        all_of(*({"$ref": f"#/$defs/%6{n}"} for n in range(1, 6)),
               **{"$defs": {c: text(n) for n, c in enumerate("abcde")} | {f"%6{n}": {} for n in range(1, 6)}}),
        all_of(*({"$id": f"http://{n}/", "$ref": "#/$defs/x", "$defs": {"x": text(n)}} for n in range(5)),
               **{"$defs": {"x": {}}}),
        {"$ref": "json-schema:///#/x", "x": all_of(*map(text, range(5)))},
    ],
)  # fmt: skip
def test_all_patterns_are_taken_to_meet_where_references_lead_nobody_knows_where(schema: dict[str, Any]):
    with pytest.raises(InvalidSchema, match=r"not plain paths such as #/.defs/NAME may have 4 patterns"):
        check_schema(schema)


def test_patterns_for_names_are_refused_before_anything_compares_each_with_each():
    names = {f"^{number:02}$": {} for number in range(65)}
    with pytest.raises(InvalidSchema, match="64 patternProperties at most"):
        check_schema({"type": "object", "patternProperties": names})


def test_what_leads_to_everything_from_everywhere_is_refused_before_that_is_looked_at():
    texts = {f"p{number}": text(1) for number in range(1000)}
    places = {f"q{number}": {"$ref": "#/$defs/all"} for number in range(600)}
    everything = {"type": "object", "properties": texts, "required": [*texts]}
    with pytest.raises(InvalidSchema, match="too involved"):
        check_schema({"type": "object", "properties": places, "required": [*places], "$defs": {"all": everything}})


def test_patterns_for_different_texts_are_as_many_as_there_are_texts():
    dated = {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "at": text(1)}}
    kinds = [
        all_of(dated, {"type": "object", "properties": {f"p{n}": text(n), "kind": {"const": n}}}) for n in range(9)
    ]
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "value": text(1)}}
    maps = {"type": "object", "patternProperties": {f"^{n}$": text(n) for n in range(9)}, "properties": {"a": tree}}
    for schema in ({"anyOf": kinds}, {"anyOf": [*map(text, range(9))]}, tree, maps, text(1, minLength=2, maxLength=9),
                   {"type": "object", "properties": {f"p{n}": text(n) for n in range(99)}},
                   {"type": "array", "prefixItems": [*map(text, range(9))]}):  # fmt: skip
        check_schema(schema)


def test_a_reason_does_not_repeat_all_of_a_pattern():
    with pytest.raises(InvalidSchema) as caught:
        check_schema({"type": "string", "pattern": "(" * 20_000})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_the_engine_generates_satisfies_the_schema(seed: int, temperature: float):
    bench = Bench()
    bench.open("a", fill(f"Who {seed}?"), generate(200, schema=PERSON, temperature=temperature, seed=seed))
    bench.run()
    finished = bench.finished("a")[0]
    person = json.loads(finished.text)
    assert person["name"] in ("Ada", "Bob")
    assert 0 <= person["age"] <= 9
    assert finished.reason is FinishReason.STOP


def test_min_tokens_cannot_keep_a_complete_value_from_ending():
    bench = Bench()
    bench.open("a", fill("x"), generate(50, schema={"const": 7}, min_tokens=20))
    bench.run()
    assert bench.text("a") == "7"
