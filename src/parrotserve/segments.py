"""Segments: what a request is made of, as the program wrote it.

A request is a list of constant texts, inputs, outputs and chat-role switches. `parrotserve.models.chat` turns
it into the flat form that an engine prefills, once the model is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from parrotserve.ids import VariableId
from parrotserve.sampling import Sampling, ToolCalls
from parrotserve.transforms import Transform


class Role(StrEnum):
    """Who speaks in a chat."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """The answer of a tool that the model called."""


@dataclass(frozen=True, slots=True)
class Text:
    """Constant text. `template` marks text that a chat template wrote: only there do special tokens count."""

    text: str
    template: bool = False
    tokens: tuple[int, ...] = ()
    """The tokens that the model is to read, if the program gave them; `text` is what they spell."""
    private: bool = False
    """Whether a chat template wrote it from more than the conversation's texts: it may tell of tools, for example."""


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
    calls: ToolCalls | None = None
    """Tool calls that it may consist of or have in its text, whatever the schema of its sampling says."""


@dataclass(frozen=True, slots=True)
class RoleSwitch:
    """From here on, this role speaks."""

    role: Role
    verbatim: bool = False
    """Whether to keep white space at the ends of the turn, and the turn even if it is empty."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of the message that chat templates read: `tool_calls`, `tool_call_id`, `name`."""


Segment = Text | Input | Output | RoleSwitch
