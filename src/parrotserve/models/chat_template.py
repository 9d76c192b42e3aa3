"""A model's chat template: Jinja, run in a sandbox with the functions that Hugging Face templates expect."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, Required, TypedDict

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from parrotserve.errors import MalformedModel, TemplateError
from parrotserve.models.files import ModelFiles
from parrotserve.models.template_source import read_template
from parrotserve.names import near


class Message(TypedDict, total=False):
    """One turn of a conversation, as templates read it."""

    role: Required[str]
    content: Required[str]
    name: str
    tool_calls: Sequence[Mapping[str, Any]]
    tool_call_id: str


_LONGEST_NAME = 80
"""Characters of an unknown variable's name that its error shows."""
_THOUGHT = "Two and two."
_REASONED: tuple[Message, ...] = (
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": f"<think>\n{_THOUGHT}\n</think>\n\n4"},
    {"role": "user", "content": "Sure?"},
)
"""A conversation that shows whether a template renders earlier answers with their reasoning."""
_ASKING = ("defined", "undefined", "default", "d")
"""Tests and filters by which templates handle names that may not be set."""
_TOLD = ("messages", "add_generation_prompt", "tools")
"""Variables that templates are given for each conversation."""


def load_chat_template(files: ModelFiles) -> "ChatTemplate | None":
    """The chat template in a model's files; None if there is none. Raises `MalformedModel`."""
    found = read_template(files)
    return None if found is None else ChatTemplate(found.source, bos=found.bos, eos=found.eos)


class ChatTemplate:
    """A compiled chat template. Safe to use from several threads.

    Raises `MalformedModel` if the source is not valid Jinja. `now` is the clock behind the template function
    `strftime_now`.
    """

    __slots__ = ("_constants", "_free", "_own", "_reads", "_splits_reasoning", "_template", "short_call_ids", "source")

    def __init__(
        self,
        source: str,
        *,
        bos: str = "",
        eos: str = "",
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self.short_call_ids = re.search(r"length\s*!=\s*9\b", source) is not None
        """Whether ids of tool calls must be nine letters and digits (Mistral)."""
        self._splits_reasoning = re.search(r"split\(\s*['\"]</think>['\"]\s*\)", source) is not None
        self._constants = {"bos_token": bos, "eos_token": eos}
        environment = _environment()
        try:
            helpers = _helpers(now)
            self._template = environment.from_string(source, globals=helpers)
            parsed = environment.parse(source)
            self._reads = frozenset(jinja2.meta.find_undeclared_variables(parsed))
            """Names that it may look up, including those in macros and loops and those that it sets in some branch."""
            self._own = frozenset({*_TOLD, *self._constants, *helpers, *environment.globals})
            self._free = self._reads - self._own - _set_by_itself(parsed)
        except jinja2.TemplateSyntaxError as error:
            message = f"The model's chat template is not valid Jinja (line {error.lineno}: {error.message})."
            raise MalformedModel(message) from error

    @property
    def takes_tools(self) -> bool:
        """Whether it renders tools."""
        return "tools" in self._reads

    def check_kwargs(self, given: Iterable[str]) -> None:
        """Raises `TemplateError` for names of `chat_template_kwargs` that programs may not set, or that have no effect
        because the template never reads them."""
        for name in given:
            if name in self._own:
                raise bad_kwargs(f"chat_template_kwargs has {name!r}, which the service sets itself: leave it out.")
            if name not in self._reads:
                short = name[:_LONGEST_NAME]
                instead = near(short, self._free) if self._free else "It reads none."
                raise bad_kwargs(
                    f"chat_template_kwargs has {short!r}, which the model's chat template does not read. {instead}"
                )

    def leaves_out_reasoning(self, chat_template_kwargs: Mapping[str, Any]) -> bool:
        """Whether it renders earlier answers without their reasoning (Qwen3, DeepSeek). Some templates have a variable
        to keep it."""
        if not (self._splits_reasoning and chat_template_kwargs):
            return self._splits_reasoning
        try:
            told = self.render(_REASONED, add_generation_prompt=True, chat_template_kwargs=chat_template_kwargs)
        except TemplateError:
            return True
        return _THOUGHT not in told

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text; `add_generation_prompt` opens the assistant's next turn. `chat_template_kwargs` are
        variables for the template; those that `check_kwargs` refuses have no effect.

        Raises `TemplateError` with the template's own words if it refuses the conversation.
        """
        told = {
            "messages": list(messages),
            "add_generation_prompt": add_generation_prompt,
            "tools": list(tools) or None,  # templates distinguish None from an empty list
        }
        free = {name: value for name, value in (chat_template_kwargs or {}).items() if name not in self._own}
        try:
            return self._template.render(free | told | self._constants)
        except jinja2.TemplateError as error:
            raise _refused(error.message or type(error).__name__) from error
        except Exception as error:  # a template is a program: it may fail in any way
            raise _refused(f"{type(error).__name__}: {error}") from error


def _set_by_itself(parsed: nodes.Template) -> set[str]:
    """Names that a template sets, and whose being defined it never tests: these are not options of it."""
    stored = {name.name for name in parsed.find_all(nodes.Name) if name.ctx == "store"}
    asked = {
        one.node.name
        for one in parsed.find_all((nodes.Test, nodes.Filter))
        if one.name in _ASKING and isinstance(one.node, nodes.Name)
    }
    return stored - asked


def bad_kwargs(message: str) -> TemplateError:
    """The error about a value of `chat_template_kwargs`."""
    return TemplateError(message, param="chat_template_kwargs")


def _refused(words: str) -> TemplateError:
    return TemplateError(f"The model's chat template refuses this conversation: {words}")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    return environment


def _helpers(now: Callable[[], datetime]) -> dict[str, Any]:
    """The functions that templates may call."""

    def strftime_now(form: str) -> str:
        return now().strftime(form)

    return {"raise_exception": _raise_exception, "strftime_now": strftime_now}


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Replaces Jinja's own `tojson`, which escapes characters for HTML: no model was trained on that."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
