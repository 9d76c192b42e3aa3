"""The result of one check."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How serious a finding is."""

    GOOD = "good"
    NOTICE = "notice"
    """Everything works, but not as well as it might."""
    BROKEN = "broken"
    """Something will fail until the advice is followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    subject: str
    found: str
    verdict: Verdict = Verdict.GOOD
    advice: str = ""
    """What to do, if the verdict is not good."""
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    """The finding in a form for programs."""
