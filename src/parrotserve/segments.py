"""Segments: what a request is made of, as the program wrote it.

A request is a list of constant texts, inputs, outputs and chat-role switches. `parrotserve.models.chat` turns
it into the flat form that an engine prefills, once the model is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from parrotserve.ids import VariableId
from parrotserve.sampling import Calls, Sampling
from parrotserve.transforms import Transform


class Role(StrEnum):
    """Who speaks in a chat."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """What a tool that the model called has answered."""


@dataclass(frozen=True, slots=True)
class Text:
    """Constant text. `template` marks text that a chat template wrote: only there do special tokens count."""

    text: str
    template: bool = False
    tokens: tuple[int, ...] = ()
    """The very tokens that the model is to read, where a program gave those; `text` is what they spell."""
    private: bool = False
    """A chat template wrote it, of more than the texts of the conversation: it may tell of tools, for example."""


@dataclass(frozen=True, slots=True)
class Input:
    """The value of a variable, passed through transforms from left to right."""

    variable: VariableId
    transforms: tuple[Transform, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """A variable that this request produces by generating here."""

    variable: VariableId
    sampling: Sampling
    calls: Calls | None = None
    """What it may be instead of what its sampling's schema says."""


@dataclass(frozen=True, slots=True)
class RoleSwitch:
    """From here on, this role speaks."""

    role: Role
    verbatim: bool = False
    """White space at the ends of the turn is no layout, and a turn without text is a turn too."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else chat templates read of the message: `tool_calls`, `tool_call_id`, `name`."""


Segment = Text | Input | Output | RoleSwitch
