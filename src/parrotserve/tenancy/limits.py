"""What a tenant may: one frozen object, a table of settings like the service's own."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from parrotserve.errors import DeclarationError
from parrotserve.settings import NUMBER, SIZE, WHOLE, Group, Kind, above, at_least, at_most, setting, settings_of

UNLIMITED = "none"


class _Lift:
    """Stands for "no limit" where None stands for "not given"."""


LIFT = _Lift()


def _or_none(kind: Kind) -> Kind:
    """The kind, extended by the word that lifts a limit."""

    def read(text: str) -> Any:
        return LIFT if text.lower() == UNLIMITED else kind.read(text)

    return Kind(read, f"{kind.advice}, or {UNLIMITED}", kind.metavar, kind.native, kind.show)


_WHOLE = _or_none(WHOLE)
_POSITIVE = (at_least(1),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one tenant; None: only the service's own limit holds. Raises `DeclarationError` for invalid values."""

    weight: float = setting(
        1.0,
        "Its share of a contended service, against the weights of others.",
        kind=NUMBER,
        group=Group.LIMITS,
        rules=(above(0), at_most(1000)),
    )
    requests_in_flight: int | None = setting(
        None,
        "Requests accepted and not yet ended, including those that wait.",
        kind=_WHOLE,
        group=Group.LIMITS,
        rules=_POSITIVE,
        unset=UNLIMITED,
    )
    tokens_per_minute: int | None = setting(
        None,
        "Prompt and output tokens in any 60 seconds, including the most that running requests may still use.",
        kind=_WHOLE,
        group=Group.LIMITS,
        rules=_POSITIVE,
        unset=UNLIMITED,
    )
    sessions: int | None = setting(
        None, "Sessions at a time.", kind=_WHOLE, group=Group.LIMITS, rules=_POSITIVE, unset=UNLIMITED
    )
    session_requests: int | None = setting(
        None,
        "Requests and native calls of a session.",
        kind=_WHOLE,
        group=Group.LIMITS,
        rules=_POSITIVE,
        unset=UNLIMITED,
    )
    session_tokens: int | None = setting(
        None,
        "Prompt and output tokens of a session over its whole life.",
        kind=_WHOLE,
        group=Group.LIMITS,
        rules=_POSITIVE,
        unset=UNLIMITED,
    )
    output_tokens: int | None = setting(
        None,
        "max_tokens of all outputs of a request together.",
        kind=_WHOLE,
        group=Group.LIMITS,
        rules=_POSITIVE,
        unset=UNLIMITED,
    )
    held_bytes: int | None = setting(
        None,
        "Memory that its sessions hold together: texts, requests, values and log-probabilities.",
        kind=_or_none(SIZE),
        group=Group.LIMITS,
        rules=(at_least(1024, "1KiB"),),
        unset=UNLIMITED,
    )
    exchanges: int | None = setting(
        None,
        "HTTP exchanges open at a time: streams, and answers that are waited for.",
        kind=_WHOLE,
        group=Group.LIMITS,
        rules=_POSITIVE,
        unset=UNLIMITED,
    )
    body_bytes: int | None = setting(
        None,
        "Size of an HTTP body.",
        kind=_or_none(SIZE),
        group=Group.LIMITS,
        rules=(at_least(1024, "1KiB"),),
        unset=UNLIMITED,
    )

    def __post_init__(self) -> None:
        for one in LIMITS.values():
            must = one.broken_rule(getattr(self, one.name))
            if must is not None:
                raise DeclarationError(f"{one.name} {must}.", setting=one.name)

    @property
    def counts_tokens(self) -> bool:
        """Whether any limit depends on how many tokens a request may take."""
        return self.tokens_per_minute is not None or self.session_tokens is not None

    def usual_output(self, texts: int = 1) -> int | None:
        """Default for the most tokens of each of `texts` outputs; None: as many as their model can write.

        Together they get half of the tokens of a minute or of a session, to leave room for their prompts.
        """
        in_all = [most // (2 * texts) for most in (self.tokens_per_minute, self.session_tokens) if most is not None]
        outputs = [self.output_tokens] if self.output_tokens is not None else []
        return max(1, min([*outputs, *in_all])) if outputs or in_all else None

    def changed(self, changes: dict[str, Any]) -> "Limits":
        """A copy with some limits changed: None leaves a limit as it is, and `LIFT` lifts it."""
        given = {name: value for name, value in changes.items() if value is not None}
        lifted: dict[str, Any] = {name: None if value is LIFT else value for name, value in given.items()}
        return Limits(**asdict(self) | lifted)

    def to_json(self) -> str:
        """The stored form: those limits that are not the defaults."""
        return json.dumps({name: value for name, value in asdict(self).items() if value != LIMITS[name].default})

    @classmethod
    def from_json(cls, text: str) -> "Limits":
        """Limits from their stored form; those that this version does not know are left out."""
        return cls(**{name: value for name, value in json.loads(text).items() if name in LIMITS})


LIMITS = settings_of(Limits)
