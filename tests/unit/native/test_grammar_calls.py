"""Outputs that satisfy a JSON schema, or are calls of tools instead, or text with calls in it."""

import json
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Core

from parrotserve.aside import at_once
from parrotserve.criteria import Objective
from parrotserve.engines.base import Generate
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.grammar import Grammar
from parrotserve.engines.native.grammars import Grammars
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.schema import check_schema
from parrotserve.errors import InvalidSchema
from parrotserve.ids import RequestId
from parrotserve.sampling import Sampling, ToolCalls

OPEN, CLOSE = 258, 259
TAGS = {OPEN: "<tool_call>", CLOSE: "</tool_call>"}
VOCABULARY = 260

ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {"value": {"$ref": "#/$defs/value"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["value", "next"],
    "additionalProperties": False,
    "$defs": {"value": {"type": "integer"}},
}
CALL: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"const": "weather"}, "arguments": {"$ref": "#/$defs/value"}},
    "required": ["name", "arguments"],
    "additionalProperties": False,
    "$defs": {"value": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]}},
}
AN_ANSWER = '{"value": 7, "next": {"value":8,"next":null}}'
A_CALL = '{"name": "weather",\n  "arguments": {"city": "Rome"}}'
TAGGED = f"<tool_call>\n{A_CALL}\n</tool_call>"


class TagTokenizer(FakeTokenizer):
    """Has a token for each tag, which is a part of the text or, `hidden`, is none."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        self._hidden = hidden

    def token_bytes(self, index: int) -> bytes:
        return TAGS[index].encode() if index in TAGS else super().token_bytes(index)

    def is_control(self, index: int) -> bool:
        return (index in TAGS and self._hidden) or super().is_control(index)

    def to_json(self) -> str:
        core = Core.from_str(super().to_json())
        core.add_tokens([AddedToken(tag, special=self._hidden) for tag in TAGS.values()])
        return core.to_str()


def grammar(
    calls: ToolCalls, tokenizer: FakeTokenizer | None = None, schema: dict[str, Any] | None = ANSWER
) -> Grammar:
    generate = Generate(sampling=Sampling(schema=schema), calls=calls)
    state = SequenceState(
        sequence=RequestId("a"), epoch=1, salt="", objective=Objective.LATENCY, arrival=0, segments=[generate]
    )
    made = Grammars(tokenizer or FakeTokenizer(), at_once).of(state, generate)
    assert made is not None
    return made


def called(*, tagged: bool, several: bool = True) -> ToolCalls:
    return ToolCalls(schema=CALL, tagged=tagged, several=several)


def accepts(grammar: Grammar, tokens: list[int]) -> bool:
    """Whether it lets these tokens come, and then the end."""
    for token in tokens:
        if grammar.complete or not grammar.allowed(VOCABULARY)[token]:
            return False
        grammar.push(token)
    return grammar.complete or bool(grammar.allowed(VOCABULARY)[256])


@pytest.mark.parametrize("tagged", [True, False])
def test_an_answer_by_the_schema_or_calls_and_nothing_else(tagged: bool):
    texts = {
        AN_ANSWER: True,
        A_CALL: not tagged,
        f"[{A_CALL}]": not tagged,
        f"[ {A_CALL},\n{A_CALL} ]": not tagged,
        TAGGED: tagged,
        f"{TAGGED}\n{TAGGED}\n": tagged,
        f"<tool_call>{A_CALL}</tool_call>": tagged,
        f"<tool_call>{AN_ANSWER}</tool_call>": False,
        AN_ANSWER + TAGGED: False,
        "[]": False,
        "": False,
        A_CALL.replace("Rome", "Oslo"): False,
        TAGGED.replace("Rome", "Oslo"): False,
        TAGGED + AN_ANSWER: False,
    }
    found = {text: accepts(grammar(called(tagged=tagged)), [*text.encode()]) for text in texts}
    assert found == texts


@pytest.mark.parametrize(("tagged", "one"), [(True, TAGGED), (False, A_CALL)])
def test_where_one_call_is_enough_it_is_the_end(tagged: bool, one: str):
    wanted = grammar(called(tagged=tagged, several=False))
    assert accepts(wanted, [*one.encode()])
    assert wanted.complete
    assert not accepts(grammar(called(tagged=tagged, several=False)), [*f"[{A_CALL}]".encode()])


def test_tags_that_are_tokens_of_the_model_are_written_as_these():
    tagged = [OPEN, *f"\n{A_CALL}\n".encode(), CLOSE]
    made = grammar(called(tagged=True), TagTokenizer(hidden=False))
    assert {*np.flatnonzero(made.allowed(VOCABULARY)).tolist()} == {ord("{"), OPEN}
    assert accepts(made, [*tagged, *b"\n", *tagged])
    assert accepts(grammar(called(tagged=True), TagTokenizer(hidden=False)), [*AN_ANSWER.encode()])


def test_tags_that_would_be_no_part_of_the_text_are_spelled():
    made = grammar(called(tagged=True), TagTokenizer(hidden=True))
    assert not made.allowed(VOCABULARY)[OPEN]
    assert accepts(made, [*TAGGED.encode()])


@pytest.mark.parametrize(
    ("answer", "call"),
    [({"type": "what"}, CALL), (ANSWER, {"type": "what"}), (ANSWER, {"$ref": "#"}), (ANSWER, {"multipleOf": 1e300})],
)
def test_both_schemas_have_to_be_such_as_can_be_enforced(answer: dict[str, Any], call: dict[str, Any]):
    with pytest.raises(InvalidSchema):
        check_schema(answer, ToolCalls(schema=call, tagged=False))


def test_an_answer_may_look_like_a_call():
    either = ToolCalls(schema=CALL, tagged=False)
    for text in (A_CALL, '{"name": "weather"}', json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})):
        assert accepts(grammar(either, schema={"type": "object"}), [*text.encode()])


@pytest.mark.parametrize("several", [True, False])
def test_text_may_have_calls_between_tags_and_these_are_held(several: bool):
    texts = {
        "": True,
        "It is {1} < 2, <tool or [3].": True,
        TAGGED: True,
        f"Wait. <tool {TAGGED}": True,
        f"{TAGGED}\nDone.": several,
        f"{TAGGED}\n{TAGGED}": several,
        "<tool_call>": False,
        "a <tool_call> b": False,
        f"Wait. {TAGGED}".replace("Rome", "Oslo"): False,
    }
    calls = called(tagged=True, several=several)
    found = {text: accepts(grammar(calls, schema=None), [*text.encode()]) for text in texts}
    assert found == texts


def test_text_may_have_calls_between_tags_that_are_tokens():
    tagged = [OPEN, *f"\n{A_CALL}\n".encode(), CLOSE]
    texts = {
        (*b"Hello",): True,
        (*b"Wait. ", *tagged): True,
        (*tagged, *b"\n", *tagged, *b"Done."): True,
        (OPEN, *b"oops"): False,
        (*f"{TAGGED}".replace("Rome", "Oslo").encode(),): False,
    }
    calls = called(tagged=True)
    found = {text: accepts(grammar(calls, TagTokenizer(hidden=False), schema=None), [*text]) for text in texts}
    assert found == texts


def test_text_or_calls_without_tags():
    texts = {
        "": True,
        " It is {1}.": True,
        A_CALL: True,
        f"[{A_CALL}, {A_CALL}]": True,
        "[1]": False,
        "{}": False,
        A_CALL.replace("Rome", "Oslo"): False,
        f"{A_CALL} Done.": False,
    }
    found = {text: accepts(grammar(called(tagged=False), schema=None), [*text.encode()]) for text in texts}
    assert found == texts
