"""JSON schemas that outputs must satisfy: whether one can be enforced, known without a tokenizer."""

import json
from typing import Any

from llguidance import LLMatcher

from parrotserve.errors import InvalidSchema

_SPACE = r"\n?[ \t]{0,20}"
"""Between two parts of a value: room for any usual layout, and an end to it; small models get lost in white space."""


def check_schema(schema: dict[str, Any]) -> None:
    """Raises `InvalidSchema` if engines could not enforce this JSON schema."""
    grammar_of(schema)


def grammar_of(schema: dict[str, Any]) -> str:
    """The schema as a grammar for `llguidance`. Raises `InvalidSchema`, saying what is wrong with it."""
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema, allow_nan=False), defaults={"whitespace_pattern": _SPACE}
        )
    except (TypeError, ValueError) as error:
        raise InvalidSchema(f"The schema is no JSON object: {error}") from error
    problem = LLMatcher.validate_grammar(grammar)
    if problem:
        raise InvalidSchema(f"The JSON schema cannot be enforced: {problem.strip()}")
    return grammar
