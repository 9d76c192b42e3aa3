"""The keyword arguments of decorators: sampling parameters, checked by name and by value."""

import dataclasses
import json
import threading
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, TypedDict, cast

from parrotserve.errors import DeclarationError, InvalidSampling
from parrotserve.names import check_names
from parrotserve.sampling import Sampling
from parrotserve.sdk.typed import json_schema

if TYPE_CHECKING:
    from parrotserve.sdk.annotations import Output


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments; `stop` may be one text, `schema` a type."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop: str | Iterable[str]
    seed: int | None
    min_tokens: int
    ignore_eos: bool
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Mapping[int, float]
    logprobs: int | None
    schema: Any
    keep_space: bool


class FunctionOptions(SamplingOptions, total=False):
    """Keyword arguments of `SemanticFunction`."""

    model: str | None
    chat: bool
    chat_template_kwargs: Mapping[str, Any] | None
    outputs: "Mapping[str, Sampling | Output]"


SAMPLING_FIELDS = frozenset(field.name for field in dataclasses.fields(Sampling))


def check_model(model: object) -> None:
    """Raise `DeclarationError` if it is neither None nor a text."""
    if not isinstance(model, str | None):
        raise DeclarationError(f"model={model!r}: model must be a name or path, as a string.")


def template_kwargs(given: object) -> dict[str, Any]:
    """A copy of variables for a chat template, as JSON data. Raises `DeclarationError` for what is not JSON."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DeclarationError(
            f"chat_template_kwargs={given!r:.80}: it is a dict, such as {{'enable_thinking': False}}."
        )
    kwargs = dict(cast("Mapping[object, object]", given))
    for name in kwargs:
        if not isinstance(name, str):
            raise DeclarationError(f"The names in chat_template_kwargs are texts, and {name!r:.80} is not.")
    try:
        return json.loads(json.dumps(kwargs, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise DeclarationError(f"In chat_template_kwargs values are those of JSON: {error}.") from error


def is_number(value: object) -> bool:
    """Whether it can be a length of time. (It may be a text that the caller has read from somewhere.)"""
    return not isinstance(value, bool) and isinstance(value, Real)


def countable(seconds: float) -> float | None:
    """A timeout that locks can take: None, for no end, if it is too long for them (on most systems, over 292 years)."""
    return None if seconds > threading.TIMEOUT_MAX else float(seconds)


def sampling_from(options: Mapping[str, Any], *, base: Sampling | None = None) -> Sampling | None:
    """`base`, or the defaults, with these fields replaced; `base` itself, which may be None, if there are none.

    Raises `DeclarationError` for an unknown name, `InvalidSampling` and `InvalidSchema` for a value.
    """
    if not options:
        return base
    check_names(options, SAMPLING_FIELDS, "Sampling")
    fields = dict(options)
    try:
        if "stop" in fields:
            fields["stop"] = _texts(fields["stop"])
        if fields.get("schema") is not None:
            fields["schema"] = json_schema(fields["schema"])
        if "logit_bias" in fields:
            fields["logit_bias"] = dict(fields["logit_bias"])
        return dataclasses.replace(base or Sampling(), **fields)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        raise InvalidSampling(f"A value of {given} has the wrong type: {error}.") from error


def _texts(stop: Any) -> tuple[str, ...]:
    texts = tuple(stop) if isinstance(stop, Iterable) and not isinstance(stop, str) else (stop,)
    for text in texts:
        if not isinstance(text, str):
            raise InvalidSampling(f"stop={stop!r}: stop must be a text or several, not {type(text).__name__}.")
    return texts
