"""JSON schemas that outputs must satisfy: whether one can be enforced, known without a tokenizer."""

import json
import textwrap
from typing import Any

from llguidance import LLMatcher

from parrotserve.engines.schema_bounds import check_bounds
from parrotserve.engines.schema_patterns import check_patterns
from parrotserve.errors import InvalidSchema

_SPACE = r"\n?[ \t]{0,20}"
"""Between two parts of a value: room for any usual layout, and an end to it; small models get lost in white space."""

_MOST_TOLD = 300
"""Characters of what the library says, who repeats patterns in full."""


def check_schema(schema: dict[str, Any]) -> None:
    """Raises `InvalidSchema` if engines could not enforce this JSON schema."""
    problem = LLMatcher.validate_grammar(grammar_of(schema))
    if problem:
        raise cannot_be_enforced(problem)


def grammar_of(schema: dict[str, Any]) -> str:
    """The schema as a grammar for `llguidance`, which may still find something wrong with it. Raises `InvalidSchema`
    for what it must not be given."""
    check_bounds(schema)
    check_patterns(schema)
    try:
        return LLMatcher.grammar_from_json_schema(
            json.dumps(schema, allow_nan=False), defaults={"whitespace_pattern": _SPACE}
        )
    except (TypeError, ValueError) as error:
        raise InvalidSchema(f"The schema is no JSON object: {error}") from error


def cannot_be_enforced(problem: str) -> InvalidSchema:
    """The error for what the library says of a schema, without the state that it appends, or all of a long pattern."""
    lines = [line for line in problem.strip().splitlines() if line.strip() and not line.lstrip().startswith("<")]
    told = " ".join(line.strip() for line in lines)
    return InvalidSchema(f"The JSON schema cannot be enforced: {textwrap.shorten(told, _MOST_TOLD)}")
