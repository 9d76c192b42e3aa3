"""A model's chat template: Jinja, run in a sandbox, with what Hugging Face templates expect around them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, Required, TypedDict

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from parrotserve.errors import MalformedModel, TemplateError
from parrotserve.models.files import ModelFiles
from parrotserve.models.template_source import read_template


class Message(TypedDict, total=False):
    """One turn of a conversation, as templates read it."""

    role: Required[str]
    content: Required[str]
    name: str
    tool_calls: Sequence[Mapping[str, Any]]
    tool_call_id: str


def load_chat_template(files: ModelFiles) -> "ChatTemplate | None":
    """The chat template in a model's files; None where there is none. Raises `MalformedModel`."""
    found = read_template(files)
    return None if found is None else ChatTemplate(found.source, bos=found.bos, eos=found.eos)


class ChatTemplate:
    """A compiled chat template. Safe to use from several threads.

    Raises `MalformedModel` where the source is no Jinja. `now` tells templates that ask for it what day it is.
    """

    __slots__ = ("_constants", "_template", "drops_reasoning", "short_call_ids", "source", "takes_tools")

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
        """Whether ids of calls have to be nine letters and digits (Mistral)."""
        self.drops_reasoning = re.search(r"split\(\s*['\"]</think>['\"]\s*\)", source) is not None
        """Whether it tells the model of its earlier answers without what led to them (Qwen3, DeepSeek)."""
        self._constants = {"bos_token": bos, "eos_token": eos}
        environment = _environment()
        try:
            self._template = environment.from_string(source, globals=_helpers(now))
            self.takes_tools = "tools" in jinja2.meta.find_undeclared_variables(environment.parse(source))
            """Whether it tells the model of tools."""
        except jinja2.TemplateSyntaxError as error:
            message = f"The model's chat template is not valid Jinja (line {error.lineno}: {error.message})."
            raise MalformedModel(message) from error

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """The conversation as text; `add_generation_prompt` opens the assistant's next turn.

        Raises `TemplateError` with the template's own words where it refuses the conversation.
        """
        try:
            return self._template.render(
                messages=list(messages),
                add_generation_prompt=add_generation_prompt,
                tools=list(tools) or None,  # templates tell None from a list
                **self._constants,
            )
        except jinja2.TemplateError as error:
            raise _refused(error.message or type(error).__name__) from error
        except Exception as error:  # a template is a program: it may fail in any way
            raise _refused(f"{type(error).__name__}: {error}") from error


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
    """Jinja's own escapes for HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
