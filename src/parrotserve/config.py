"""Settings of a service: one frozen object, filled from flags, then the environment, then defaults.

A flag wins over the environment, which wins over the default. The variable of a setting is its name in capitals
behind `PARROT_`: `engines` is `PARROT_ENGINES`. A `PARROT_` variable that nothing reads is refused, so that a typo
is not a silent default.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parrotserve.errors import DeclarationError
from parrotserve.switches import Switches

DEFAULT_MODEL = "default"
"""The registry's own default; a service with nothing configured serves it."""

BACKENDS = ("auto", "kernels", "reference")

_PREFIX = "PARROT_"
_READ_ELSEWHERE = ("PARROT_URL", "PARROT_API_KEY", "PARROT_CACHE", "PARROT_INDEX_URL")

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What a service serves, and within which limits. Raises `DeclarationError` for values that make no sense."""

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    """Names or paths; the first is used by requests that name none."""
    engines: int = 1
    """Engines for each model."""
    on_demand: bool = False
    """Start engines for other models, if they can be found, when requests name them."""
    backend: str = "auto"
    """What computes the engines' steps: `kernels`, `reference`, or `auto`, the first where it is installed."""
    kv_memory: int | None = None
    """Bytes of each engine's KV cache; None lets the engine choose."""
    prefill_chunk: int | None = None
    """Most prompt tokens that an engine prefills in one step; None lets the engine choose."""
    threads: int | None = None
    """Threads of each engine; None lets the engine choose."""
    without: tuple[str, ...] = ()
    """Optimisations that are turned off, by the names of `Switches`; `all` for all of them."""
    max_lease_seconds: float = 86_400.0
    """The longest lease that a session gets, whatever it asks for."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    max_body_bytes: int = 16 * _MIB
    """Larger HTTP bodies are refused."""

    def __post_init__(self) -> None:
        _require(bool(self.models) and all(self.models), "models", "must name at least one model")
        _require(len(set(self.models)) == len(self.models), "models", "must not name a model twice")
        _require(1 <= self.engines <= 64, "engines", "must be between 1 and 64")
        _require(self.backend in BACKENDS, "backend", f"must be one of {', '.join(BACKENDS)}")
        _require(self.kv_memory is None or self.kv_memory >= _MIB, "kv_memory", "must be at least 1MiB")
        _require(self.prefill_chunk is None or self.prefill_chunk >= 1, "prefill_chunk", "must be at least 1")
        _require(self.threads is None or self.threads >= 1, "threads", "must be at least 1")
        Switches.without(self.without)
        _require(self.max_lease_seconds > 0, "max_lease_seconds", "must be above 0")
        _require(0 <= self.port <= 65_535, "port", "must be between 0 and 65535")
        _require(self.max_body_bytes >= 1024, "max_body_bytes", "must be at least 1KiB")

    @property
    def switches(self) -> Switches:
        """Which optimisations are on."""
        return Switches.without(self.without)

    @classmethod
    def load(cls, *, environment: Mapping[str, str] | None = None, **flags: Any) -> "ServiceConfig":
        """Settings from flags (None: not given), else the environment, else the defaults."""
        given = read_environment(os.environ if environment is None else environment)
        return cls(**given | {name: value for name, value in flags.items() if value is not None})


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that `PARROT_` variables give. Raises `DeclarationError` for unknown ones and bad values."""
    settings: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _READ_ELSEWHERE:
            continue
        name = variable.removeprefix(_PREFIX).lower()
        parse = _PARSERS.get(name)
        if parse is None or variable != variable.upper():
            raise _unknown(variable)
        if text.strip():
            try:
                settings[name] = parse(text.strip())
            except ValueError as error:
                raise DeclarationError(f"{variable}={text!r}: {error}.", setting=name) from error
    return settings


def parse_size(text: str) -> int:
    """Bytes from `512MiB`, `2GB`, `1.5 GiB` or a plain number. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if match is None or (match[3] and not match[2]):
        raise ValueError("write a size such as 512MiB or 2GB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2] or " "))


def parse_names(text: str) -> tuple[str, ...]:
    """Names from a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _require(good: bool, name: str, rule: str) -> None:
    if not good:
        raise DeclarationError(f"{name} {rule}.", setting=name)


def _unknown(variable: str) -> DeclarationError:
    known = [_PREFIX + name.upper() for name in _PARSERS] + list(_READ_ELSEWHERE)
    close = difflib.get_close_matches(variable.upper(), known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(sorted(known))}."
    return DeclarationError(f"There is no setting {variable}. {hint}", setting=variable)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("write a whole number") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("write a number of seconds") from None


def _switch(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("write 1 or 0")


_PARSERS: dict[str, Callable[[str], Any]] = {
    "models": parse_names,
    "engines": _whole,
    "on_demand": _switch,
    "backend": str,
    "kv_memory": parse_size,
    "prefill_chunk": _whole,
    "threads": _whole,
    "without": parse_names,
    "max_lease_seconds": _seconds,
    "host": str,
    "port": _whole,
    "max_body_bytes": parse_size,
}
assert set(_PARSERS) == {field.name for field in dataclasses.fields(ServiceConfig)}
