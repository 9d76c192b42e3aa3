"""How an output's tokens are chosen, and why an output ended."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from parrotserve.errors import InvalidSampling
from parrotserve.names import takes_names
from parrotserve.strict import Number, Truth, Whole

MAX_LOGPROBS = 20
MAX_STOPS = 64
MAX_STOP_LENGTH = 1000
MAX_BIASES = 1024
_MOST_SHOWN = 200
_LEAST_TEMPERATURE = 1e-300
"""Logits divided by less may overflow."""
_MOST_BIAS = 10_000


class FinishReason(StrEnum):
    """Why an output ended."""

    STOP = "stop"
    """The model ended its turn, or a stop string appeared (it is not part of the text)."""
    LENGTH = "length"
    """`max_tokens`, or the context or cache, was full."""


@takes_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one output's tokens are chosen. The defaults are greedy and reproducible.

    Raises `InvalidSampling`, naming the field, for values that no engine could honour, and `DeclarationError` for
    fields that there are not.
    """

    max_tokens: Whole = 256
    """At most this many tokens; clipped to what the context has left."""
    temperature: Number = 0.0
    """0 takes the likeliest token; higher is more random."""
    top_p: Number = 1.0
    """Keep the likeliest tokens whose probabilities sum to this."""
    top_k: Whole = 0
    """Keep this many tokens; 0 keeps all."""
    min_p: Number = 0.0
    """Drop tokens less likely than this fraction of the likeliest."""
    stop: tuple[str, ...] = ()
    """Texts that end the output; they are not part of it."""
    seed: Whole | None = None
    """Fixes the randomness; with None it is drawn once: where the request is declared, else at admission."""
    min_tokens: Whole = 0
    """Neither a stop string nor the model's end of turn ends the output before this many tokens."""
    ignore_eos: Truth = False
    """Go on until `max_tokens`, whatever the model says."""
    presence_penalty: Number = 0.0
    """Subtracted once from the logit of every token that the output already has."""
    frequency_penalty: Number = 0.0
    """Subtracted from a token's logit once for each time that the output has it."""
    repetition_penalty: Number = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens that prompt or output has."""
    logit_bias: dict[int, Number] = field(default_factory=dict[int, float])
    """Added to the logits of these token ids."""
    logprobs: Whole | None = None
    """Report the log-probability of every chosen token and of this many likeliest ones."""
    schema: dict[str, Any] | None = None
    """A JSON schema that the output must satisfy."""
    keep_space: Truth = False
    """Keep the space that the text begins with, if it does; otherwise one is dropped."""

    def __post_init__(self) -> None:
        self._check_types()
        checks: tuple[tuple[str, bool, str], ...] = (
            ("max_tokens", self.max_tokens >= 1, "must be at least 1"),
            (
                "temperature",
                self.temperature == 0.0 or _LEAST_TEMPERATURE <= self.temperature <= 100.0,
                f"must be 0, or between {_LEAST_TEMPERATURE:g} and 100",
            ),
            ("top_p", 0.0 < self.top_p <= 1.0, "must be above 0 and at most 1"),
            ("top_k", 0 <= self.top_k < 2**63, "must be 0 (all) or a number of tokens"),
            ("min_p", 0.0 <= self.min_p <= 1.0, "must be between 0 and 1"),
            ("stop", all(self.stop), "must not hold an empty text"),
            (
                "stop",
                len(self.stop) <= MAX_STOPS and all(len(text) <= MAX_STOP_LENGTH for text in self.stop),
                f"may hold {MAX_STOPS} texts of {MAX_STOP_LENGTH} characters",
            ),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "must be between 0 and 2**63 - 1"),
            ("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "must be between 0 and max_tokens"),
            ("presence_penalty", -2.0 <= self.presence_penalty <= 2.0, "must be between -2 and 2"),
            ("frequency_penalty", -2.0 <= self.frequency_penalty <= 2.0, "must be between -2 and 2"),
            ("repetition_penalty", 0.01 <= self.repetition_penalty <= 10.0, "must be between 0.01 and 10"),
            ("logit_bias", all(map(_is_bias, self.logit_bias.items())), "gives token ids, from 0 up, a number each"),
            (
                "logit_bias",
                all(abs(bias) <= _MOST_BIAS for bias in self.logit_bias.values()),
                f"adds numbers between -{_MOST_BIAS} and {_MOST_BIAS}; -100 is as good as never",
            ),
            ("logit_bias", len(self.logit_bias) <= MAX_BIASES, f"may name {MAX_BIASES} tokens"),
            (
                "logprobs",
                self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
                f"must be between 0 and {MAX_LOGPROBS}",
            ),
        )
        for name, good, rule in checks:
            if not good:
                raise InvalidSampling(f"{name}={_shortened(getattr(self, name))}: {name} {rule}.", param=name)

    def _check_types(self) -> None:
        """Check types at run time, for those who use no type checker."""
        for names, kinds, rule in _TYPES:
            for name in names:
                value = getattr(self, name)
                # In Python a bool is an int too; whoever passed one meant something else.
                right = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
                if not right and not (value is None and name in _OPTIONAL):
                    raise InvalidSampling(
                        f"{name}={_shortened(value)} has the wrong type: it must be {rule}.", param=name
                    )


def _is_bias(entry: tuple[Any, Any]) -> bool:
    token, bias = entry
    told = not isinstance(token, bool) and not isinstance(bias, bool)
    return told and isinstance(token, int) and token >= 0 and isinstance(bias, int | float)


def _shortened(value: Any) -> str:
    """A value as an error shows it."""
    shown = repr(value)
    return shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + "..."


_TYPES: tuple[tuple[tuple[str, ...], type | tuple[type, ...], str], ...] = (
    (("max_tokens", "top_k", "seed", "min_tokens", "logprobs"), int, "a whole number"),
    (
        ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
        (int, float),
        "a number",
    ),
    (("stop",), (tuple, list, str), "a text or several"),
    (("logit_bias", "schema"), dict, "a dict"),
    (("ignore_eos", "keep_space"), bool, "True or False"),
)
_OPTIONAL = frozenset({"seed", "logprobs", "schema"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalls:
    """Calls of tools: an output may be these instead of what its schema says or, without a schema, have them in its
    text, which without tags is one or the other."""

    schema: dict[str, Any]
    """A JSON schema of one call."""
    tagged: Truth
    """Whether each call is written between `CALL_TAGS`; otherwise the whole text is a call, or a list of calls. (Then
    an output that is no call, and has no schema, does not begin with a bracket.)"""
    several: Truth = True
    """Whether there may be more than one call."""


CALL_TAGS = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability of one chosen token, before temperature, and of its likeliest rivals."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sequence consumed."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Number of prompt tokens whose KV was already in the cache."""
    output_tokens: int = 0
    engine_seconds: float = 0.0
    """Its share of the engine's step time."""

    def plus(self, other: "Usage") -> "Usage":
        """The sum of both."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.engine_seconds + other.engine_seconds,
        )
