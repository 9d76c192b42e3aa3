"""JSON schemas that outputs, or calls in them, must satisfy: their grammars, checked without a tokenizer."""

import json
import textwrap
from collections.abc import Collection
from typing import Any

from llguidance import LLMatcher

from parrotserve.engines.schema_bounds import check_bounds
from parrotserve.engines.schema_patterns import check_patterns
from parrotserve.errors import InvalidSchema
from parrotserve.sampling import CALL_TAGS, ToolCalls

_SPACE = r"\n?[ \t]{0,20}"
"""White space between parts of a value: enough for any usual layout, but bounded: small models get lost in it."""

_MOST_TOLD = 300
"""Most characters of a message of the library, which repeats patterns in full."""


_SPACES = r"SPACES: /[ \t\n]{1,20}/"
_TAGGED = """start: @answer | {calls}
call: {open} SPACES? @call SPACES? {close} {more}
"""
_LISTED = """start: {answer} | @call{or_list}
list: "[" SPACES? @call (SPACES? "," SPACES? @call)* SPACES? "]"
"""
_IN_TEXT = """start: {start}
call: {open} SPACES? @call SPACES? {close}
opening[lazy]: ANY "{tag}"
TEXT: ANY & ~/(.|\\n)*{tag}(.|\\n)*/
ANY: /(.|\\n)*/
"""
_NO_CALL = r"TEXT: /[ \t\n]*([^ \t\n\[{](.|\n)*)?/" + "\n"


def check_schema(schema: dict[str, Any] | None, calls: ToolCalls | None = None) -> None:
    """Raises `InvalidSchema` if engines could not enforce this JSON schema, or that of calls; see `grammar_of`."""
    problem = LLMatcher.validate_grammar(grammar_of(schema, calls))
    if problem:
        raise cannot_be_enforced(problem)


def grammar_of(schema: dict[str, Any] | None, calls: ToolCalls | None = None, *, tokens: Collection[str] = ()) -> str:
    """The grammar, for `llguidance`, of what satisfies the schema, or is calls instead; without a schema, of text with
    calls in it. The library may still refuse it. Those of `CALL_TAGS` that are `tokens` of the model are written as
    tokens. Raises `InvalidSchema` for a schema that the library must not be given."""
    answer = None if schema is None else _checked(schema)
    if calls is None:
        assert answer is not None, "there is nothing to enforce"
        return answer
    parts = [] if answer is None else [_part("answer", answer)]
    parts.append(_part("call", _checked(calls.schema)))
    rules = _alternatives(calls, tokens) if answer is not None else _in_text(calls, tokens)
    return json.dumps({"grammars": [{"lark_grammar": rules}, *parts]})


def _alternatives(calls: ToolCalls, tokens: Collection[str]) -> str:
    """The grammar of an answer or calls. Each has its own JSON schema, so that their references are kept apart."""
    if not calls.tagged:
        return _LISTED.format(answer="@answer", or_list=_or_list(calls)) + _SPACES
    opening, close = _tags(tokens)
    calls_there, more = ("call+", "SPACES?") if calls.several else ("call", "")
    return _TAGGED.format(calls=calls_there, open=opening, close=close, more=more) + _SPACES


def _in_text(calls: ToolCalls, tokens: Collection[str]) -> str:
    """The grammar of text with calls in it; if these have no tags, of text that does not begin like a call, or of calls
    alone."""
    if not calls.tagged:
        return _LISTED.format(answer="TEXT", or_list=_or_list(calls)) + _NO_CALL + _SPACES
    tag, close = _tags(tokens)
    opening = "opening" if tag not in tokens else f"ANY {tag}"
    start = "call* TEXT" if calls.several else "call | TEXT"
    return _IN_TEXT.format(start=start, open=opening, close=close, tag=CALL_TAGS[0]) + _SPACES


def _or_list(calls: ToolCalls) -> str:
    return " | list" if calls.several else ""


def _tags(tokens: Collection[str]) -> tuple[str, str]:
    opening, close = (tag if tag in tokens else json.dumps(tag) for tag in CALL_TAGS)
    return opening, close


def _part(name: str, grammar: str) -> dict[str, Any]:
    """The grammar of a JSON schema, to be a named part of another grammar."""
    (only,) = json.loads(grammar)["grammars"]
    return {"name": name, "json_schema": only["json_schema"]}


def _checked(schema: dict[str, Any]) -> str:
    check_bounds(schema)
    check_patterns(schema)
    try:
        return LLMatcher.grammar_from_json_schema(
            json.dumps(schema, allow_nan=False), defaults={"whitespace_pattern": _SPACE}
        )
    except (TypeError, ValueError) as error:
        raise InvalidSchema(f"The schema is not a JSON object: {error}") from error


def cannot_be_enforced(problem: str) -> InvalidSchema:
    """The error for a message of the library about a schema, shortened, and without the state that it appends."""
    lines = [line for line in problem.strip().splitlines() if line.strip() and not line.lstrip().startswith("<")]
    told = " ".join(line.strip() for line in lines)
    return InvalidSchema(f"The JSON schema cannot be enforced: {textwrap.shorten(told, _MOST_TOLD)}")
