"""Typed outputs: a type says what the model may write, and what `get` returns."""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from parrotserve.errors import InvalidOutput, InvalidSchema
from parrotserve.sampling import FinishReason
from parrotserve.sdk.schema_keywords import warn_of_misspelt


class TypedSchema(dict[str, Any]):
    """A JSON schema that knows the type that it was made from, and otherwise is an ordinary dict."""

    __slots__ = ("_adapter", "_name")

    def __init__(self, kind: Any) -> None:
        """Make the schema of a pydantic model, a dataclass, a TypedDict, or any other type that pydantic can describe.
        Raises `InvalidSchema`."""
        self._name = getattr(kind, "__name__", None) or str(kind)
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
            schema = self._adapter.json_schema()
        except Exception as error:  # describing a type may raise anything
            raise InvalidSchema(
                f"schema={self._name}: a schema is a dict or a type that pydantic can describe, such as a pydantic "
                f"model ({type(error).__name__}: {str(error).splitlines()[0]})."
            ) from error
        super().__init__(_closed(plain(schema)))

    def parse(self, text: str, *, output: str, reason: FinishReason | None) -> Any:
        """Convert an output's text to an object of the type. Raises `InvalidOutput`, also if it may have been cut
        off."""
        cut = reason is FinishReason.LENGTH
        try:
            value = self._adapter.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise self._invalid(f"{place}: {first['msg']}" if place else first["msg"], output, cut=cut) from error
        if cut and _may_go_on(text):
            raise self._invalid(f"{text:.40} may be its beginning", output, cut=cut)
        return value

    def _invalid(self, why: str, output: str, *, cut: bool) -> InvalidOutput:
        hint = " It was cut off: allow it more tokens by max_tokens." if cut else ""
        return InvalidOutput(
            f"The output {output!r} is no {self._name}: {why}.{hint} Its text is in str(variable).", output=output
        )


def _may_go_on(json_text: str) -> bool:
    """Whether it may be the beginning of another value: only numbers do not show where they end.

    An output whose schema allows no further digit has ended by itself, and is not cut off.
    """
    return json_text[-1:].isdigit()


def _closed(schema: Any) -> Any:
    """The schema with unknown properties forbidden: pydantic ignores them, but a model could write them for ever."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


class _Seen(dict[str, Any]):
    """A JSON schema that was checked for misspelt keywords: options are read more than once, but must warn once."""


def json_schema(schema: Any) -> dict[str, Any]:
    """A JSON schema from plain data, or from a type, which it then knows. Raises `InvalidSchema`; warns of keywords
    that may be misspelt."""
    if isinstance(schema, TypedSchema | _Seen):
        return schema
    if isinstance(schema, dict):
        seen = _Seen(plain(schema))
        warn_of_misspelt(seen)
        return seen
    if isinstance(schema, str | bytes | int | float | list | tuple):
        hint = '; for one of these, write {"enum": [...]}' if isinstance(schema, list | tuple) else ""
        raise InvalidSchema(f"A schema is a dict or a type, such as a pydantic model, not {schema!r:.80}{hint}.")
    return TypedSchema(schema)


def plain(schema: Any) -> dict[str, Any]:
    """A copy of the schema as JSON data. Raises `InvalidSchema`."""
    try:
        return json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidSchema(f"The schema is not JSON: {error}.") from error
