"""What a setting is: its type, in texts and in TOML, its rules, and its description for people.

A setting is one field of a config class, made by `setting`: flags, the environment, the file, `parrot config` and
docs/configuration.md all follow from the fields.
"""

import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")

FLAG = "flag"
"""The origin of a value that was given to a command, or by a program."""

_KEY = "setting"


class Group(StrEnum):
    """The headings under which settings are listed."""

    MODELS = "Models and engines"
    SCHEDULING = "Scheduling"
    SERVER = "Server"
    TENANTS = "Tenants"
    LIMITS = "Limits"


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of values: how they are read from text, taken from TOML, and shown."""

    read: Callable[[str], Any]
    """Reads a value from a stripped text; raises ValueError."""
    advice: str
    """What to write, for error messages."""
    metavar: str
    native: tuple[type, ...] = ()
    """Types that TOML may have in place of a string."""
    show: Callable[[Any], str] = str
    """Writes a value in the form that `parse` reads."""
    advice_in_toml: str = ""
    """What to write in a file, if that differs from `advice`."""

    def parse(self, text: str) -> Any:
        """A value from a flag or the environment. Raises ValueError with the advice."""
        try:
            return self.read(text.strip())
        except ValueError:
            raise ValueError(self.advice) from None

    def from_toml(self, value: object) -> Any:
        """A value from a file. Raises ValueError with the advice."""
        advice = self.advice_in_toml or self.advice
        if type(value) not in (str, *self.native):
            raise ValueError(advice)
        if isinstance(value, list):
            return tuple(map(str, cast("list[object]", value)))
        try:
            return self.read(str(value).strip())  # through its text, so that a file may say no more than a flag
        except ValueError:
            raise ValueError(advice) from None


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on a value, and its wording for messages."""

    holds: Callable[[Any], bool]
    must: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, as everything that lists or reads settings sees it."""

    name: str
    default: Any
    about: str
    kind: Kind
    group: Group
    rules: tuple[Rule, ...]
    unset: str
    """What applies while the value is None or empty."""
    flag: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"PARROT_{self.name.upper()}"

    @property
    def told(self) -> str:
        """Its description and its rules, in one line."""
        rules = " and ".join(rule.must for rule in self.rules)
        return f"{self.about} {rules[0].upper()}{rules[1:]}." if rules else self.about

    def shown(self, value: Any) -> str:
        """The value as people write it, or what applies if there is none."""
        return self.unset if value in (None, ()) else self.kind.show(value)

    def as_given(self, value: Any, origin: str, environment: Mapping[str, str]) -> str:
        """The value as it was written, with its place: a flag (`origin` is `FLAG`), the environment, or a file."""
        if origin == self.variable:
            return f"{origin}={environment[origin]!r}"
        shown = self.kind.show(value)
        return f"{self.flag} {shlex.quote(shown)}" if origin == FLAG else f"{self.name} = {shown} in {origin}"

    def broken_rule(self, value: Any) -> str | None:
        """The wording of the first rule that the value breaks; None if there is none."""
        if value is None and self.default is None:
            return None
        return next((rule.must for rule in self.rules if not rule.holds(value)), None)


def setting(
    default: T, about: str, *, kind: Kind, group: Group, rules: tuple[Rule, ...] = (), unset: str = "", flag: str = ""
) -> T:
    """A field of a config class. `about`: one sentence, for help and documents. `flag`: the command-line flag, if it is
    not named like the field."""
    return field(default=default, metadata={_KEY: (about, kind, group, rules, unset, flag)})


def settings_of(config: type[Any]) -> dict[str, Setting]:
    """The settings of a config class by name, in its order."""
    found: dict[str, Setting] = {}
    for one in fields(config):
        about, kind, group, rules, unset, flag = one.metadata[_KEY]
        found[one.name] = Setting(
            name=one.name,
            default=one.default,
            about=about,
            kind=kind,
            group=group,
            rules=rules,
            unset=unset,
            flag=flag or f"--{one.name.replace('_', '-')}",
        )
    return found


# --- Kinds ----------------------------------------------------------------------------------------------------


_BOUNDLESS = 2.0**63
"""More bytes than any machine has, or any system call accepts."""


def parse_size(text: str) -> int:
    """Bytes from `512MiB`, `2GB`, `1.5 GiB` or a plain number. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if match is None or (match[3] and not match[2]):
        raise ValueError("write a size such as 512MiB or 2GB")
    size = float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2] or " ")
    if size >= _BOUNDLESS:
        raise ValueError("this size is too large; write one such as 512MiB or 2GB")
    return int(size)


def show_size(size: int) -> str:
    """Bytes in the largest binary unit that leaves a whole number."""
    unit = 0
    while size and size % 1024 == 0 and unit < 4:
        size //= 1024
        unit += 1
    return f"{size}{('', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError(text)
    return _SWITCH[text.lower()]


def _show_switch(on: bool) -> str:
    return "on" if on else "off"


def _folder(text: str) -> Path:
    path = home_expanded(text)
    if not text or str(path).startswith("~"):  # else a folder named "~name" would be made
        raise ValueError(text)
    return path


def home_expanded(path: str) -> Path:
    """The path with `~` expanded as in shells: the name of an unknown user is left as it is."""
    return Path(os.path.expanduser(path))  # Path.expanduser fails for unknown users


def _address(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text  # URLs have IPv6 addresses in brackets
    if ":" in bare:
        ipaddress.IPv6Address(bare)
    return bare


TEXT = Kind(str, "write a text", "TEXT")
ADDRESS = Kind(_address, "write an address or a name, without a port: that is --port, or PARROT_PORT", "TEXT")
NAMES = Kind(_names, "write names, separated by commas", "TEXT", (list,), ",".join)
FOLDER = Kind(_folder, "write the path of a folder", "FOLDER")
WHOLE = Kind(int, "write a whole number", "NUMBER", (int,))
NUMBER = Kind(float, "write a number", "NUMBER", (int, float), "{:g}".format)
SECONDS = Kind(float, "write a number of seconds", "SECONDS", (int, float), "{:g}".format)
SIZE = Kind(parse_size, "write a size such as 512MiB or 2GB", "SIZE", (int,), show_size)
SWITCH = Kind(_switch, "write on or off", "", (bool,), _show_switch, "write true or false")  # TOML knows no bare `on`


# --- Rules ----------------------------------------------------------------------------------------------------


def at_least(least: float, shown: str | None = None) -> Rule:
    """A lower bound; `shown` is its wording, if not the number itself."""
    return Rule(lambda value: value >= least, f"must be at least {shown or least}")


def at_most(most: float) -> Rule:
    """An upper bound."""
    return Rule(lambda value: value <= most, f"must be at most {most}")


def between(least: float, most: float) -> Rule:
    """A range that includes both ends."""
    return Rule(lambda value: least <= value <= most, f"must be between {least} and {most}")


def above(bound: float) -> Rule:
    """A lower bound that is excluded; NaN breaks it too."""
    return Rule(lambda value: value > bound, f"must be above {bound}")


def one_of(*choices: str) -> Rule:
    """One of a few words."""
    return Rule(lambda value: value in choices, f"must be one of {', '.join(choices)}")
