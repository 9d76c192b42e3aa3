"""Tools: how models write calls of functions, how one is enforced, and reading what they wrote.

A chat template tells the model its tools, and how to call them, which differs between models. Two formats cover the
families that are served: calls between `<tool_call>` tags (Qwen, Hermes and relatives), and answers that consist only
of calls as JSON (Llama, Mistral), whose marks are control tokens and therefore not part of the text.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, cast

from parrotserve.errors import DeclarationError, InvalidSchema
from parrotserve.models.chat_template import ChatTemplate
from parrotserve.sampling import CALL_TAGS, ToolCalls
from parrotserve.server.openai.answers import json_text
from parrotserve.server.openai.wire import AllowedTools, ChatRequest, ChosenTool, FunctionSpec

_OPEN, _CLOSE = CALL_TAGS
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_MISTRAL = "[TOOL_CALLS]"
_DEFINITIONS = "#/$defs/"
_ID_LENGTH = 9
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""The schema of a function's parameters if it declares none."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model wrote; `arguments` is JSON."""

    name: str
    arguments: str


class AnswerForm(Enum):
    """What an answer may be where tools are offered."""

    CALLS = auto()
    """Tool calls and nothing else."""
    FORMAT_OR_CALLS = auto()
    """Text of the response format, or tool calls: a grammar enforces that it is one or the other."""
    TEXT_AND_STRICT_CALLS = auto()
    """Any text with tool calls in it. A grammar enforces the form of calls, and parameters of `strict` functions."""
    TEXT_AND_CALLS = auto()
    """Any text with tool calls in it, as the model writes them."""

    @property
    def is_text(self) -> bool:
        """Whether the answer may be any text, in which calls are looked for."""
        return self in (AnswerForm.TEXT_AND_STRICT_CALLS, AnswerForm.TEXT_AND_CALLS)


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request, and how its model calls them."""

    functions: tuple[FunctionSpec, ...]
    tagged: bool
    arguments_key: str
    form: AnswerForm
    only_one: bool = False
    """Whether an answer ends with its first call."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings besides those of the request: if one call is enough, no second one is written."""
        return (_CLOSE,) if self.only_one and self.tagged and self.form.is_text else ()

    @property
    def opening(self) -> str:
        """The text with which the answer has to begin if it must be a call."""
        return f"{_OPEN}\n" if self.form is AnswerForm.CALLS and self.tagged else ""

    def allowed_calls(self) -> ToolCalls | None:
        """Calls to be enforced in place of a formatted answer, or in one of free text; None if there are none."""
        if self.form not in (AnswerForm.FORMAT_OR_CALLS, AnswerForm.TEXT_AND_STRICT_CALLS):
            return None
        return ToolCalls(schema=self.schema(), tagged=self.tagged, several=not self.only_one)

    def schema(self) -> dict[str, Any]:
        """The JSON schema of a call; for an answer that must be a call, that of what follows `opening`."""
        definitions: dict[str, Any] = {}
        try:
            schemas = [self._schema_of(function, definitions) for function in self.functions]
        except RecursionError as error:
            raise InvalidSchema("The parameters of a tool are nested too deeply.", param="tools") from error
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        return schema | ({"$defs": definitions} if definitions else {})

    def read(self, text: str) -> tuple[str | None, list[ToolCall]]:
        """Split an answer into its text, if it has any, and its calls. What only resembles calls is text."""
        content, calls = self._read(text)
        return content, calls[:1] if self.only_one else calls

    def _read(self, text: str) -> tuple[str | None, list[ToolCall]]:
        if self.form is AnswerForm.FORMAT_OR_CALLS and not self._may_be_calls(text):
            return text, []
        if self.form is AnswerForm.CALLS or not self.tagged:
            calls = self._tool_calls(text.strip().removeprefix(_MISTRAL))
            return (None, calls) if calls else (text, [])
        written = [self._tool_calls(match[1].strip()) for match in _TAGGED.finditer(text)]
        if not written or not all(written):
            return text, []
        return _TAGGED.sub("", text).rstrip() or None, [call for calls in written for call in calls]

    def shown_at_once(self, text: str) -> int:
        """Number of characters of an unfinished answer that are certainly text, not part of a call."""
        if self.form is AnswerForm.CALLS:
            return 0
        if self.form is AnswerForm.FORMAT_OR_CALLS:
            return 0 if self._may_be_calls(text) else len(text)
        if not self.tagged:
            begun = text.lstrip()
            return 0 if not begun or begun[0] in "{[" else len(text)
        start = text.find(_OPEN)
        if start >= 0:
            return len(text[:start].rstrip())
        held = next((n for n in range(min(len(_OPEN) - 1, len(text)), 0, -1) if _OPEN.startswith(text[-n:])), 0)
        return len(text[: len(text) - held].rstrip())

    def _may_be_calls(self, text: str) -> bool:
        """Whether an answer that is either formatted or calls, and begins with this text, may still be calls."""
        begun = "".join(text.split())
        if self.tagged:
            return begun.startswith(_OPEN) or _OPEN.startswith(begun)
        begun = begun.removeprefix("[")
        beginnings = (f'{{"name":"{function.name}","{self.arguments_key}":' for function in self.functions)
        return any(begun.startswith(beginning) or beginning.startswith(begun) for beginning in beginnings)

    def _tool_calls(self, written: str) -> list[ToolCall]:
        try:
            found = _parsed(written)
        except (ValueError, RecursionError):
            return []
        calls = [self._tool_call(item) for item in (found if isinstance(found, list) else [found])]
        return [call for call in calls if call is not None] if all(calls) else []

    def _tool_call(self, found: Any) -> ToolCall | None:
        name = found.get("name") if isinstance(found, Mapping) else None
        if not any(each.name == name for each in self.functions):
            return None
        arguments = found.get("arguments", found.get("parameters", {}))
        if self.form.is_text:  # otherwise a grammar enforced an object
            arguments = _object(arguments)
            if arguments is None:
                return None
        return ToolCall(found["name"], arguments if isinstance(arguments, str) else json_text(arguments))

    def _schema_of(self, function: FunctionSpec, definitions: dict[str, Any]) -> dict[str, Any]:
        free = self.form is AnswerForm.TEXT_AND_STRICT_CALLS and not function.strict
        parameters = {"type": "object"} if free else dict(function.parameters or _NO_PARAMETERS)
        parameters.pop("$id", None)  # it would be the base of references
        place = f"{_DEFINITIONS}{function.name}"
        definitions[function.name] = _moved(parameters, place)
        return {
            "type": "object",
            "properties": {"name": {"const": function.name}, self.arguments_key: {"$ref": place}},
            "required": ["name", self.arguments_key],
            "additionalProperties": False,
        }


def tools_of(body: ChatRequest, template: ChatTemplate | None) -> Tools | None:
    """The tools that the answer may use; None for none. Raises `DeclarationError` if the model supports no tools."""
    if not body.tools or body.tool_choice == "none":
        return None
    if template is None or not template.takes_tools:
        raise DeclarationError(
            "The model's chat template does not support tools: leave them out, ask for JSON with a response format, or "
            "use a model that supports tools.",
            param="tools",
        )
    choice = body.tool_choice
    must_call = choice == "required" or isinstance(choice, ChosenTool)
    functions = tuple(tool.function for tool in body.tools)
    if isinstance(choice, ChosenTool):
        functions = tuple(_chosen(functions, [choice]))
    if isinstance(choice, AllowedTools):
        must_call = choice.allowed_tools.mode == "required"
        functions = tuple(_chosen(functions, choice.allowed_tools.tools))
    tagged = _OPEN in template.source
    form = AnswerForm.TEXT_AND_CALLS
    if must_call:
        form = AnswerForm.CALLS
    elif body.response_format is not None and body.response_format.type != "text":
        form = AnswerForm.FORMAT_OR_CALLS
    # A grammar is about text, so it could not allow a control token before the calls.
    elif any(function.strict for function in functions) and (tagged or _MISTRAL not in template.source):
        form = AnswerForm.TEXT_AND_STRICT_CALLS
    return Tools(
        functions=functions,
        tagged=tagged,
        arguments_key="parameters" if '"parameters": dictionary' in template.source else "arguments",
        form=form,
        only_one=body.parallel_tool_calls is False,
    )


def tool_call_id(*parts: str | int) -> str:
    """The id of a call, the same for the same parts: nine letters and digits, as Mistral's templates require."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(errors="surrogatepass")).hexdigest()[:_ID_LENGTH]


def taken_call_id(given: str, template: ChatTemplate) -> str:
    """The id of a call in a form that the template accepts; another service may have given the call its id."""
    fits = not template.short_call_ids or (len(given) == _ID_LENGTH and given.isalnum())
    return given if fits else tool_call_id(given)


def described(body: ChatRequest) -> tuple[dict[str, Any], ...]:
    """All tools of a request, as chat templates read them."""
    return tuple(
        {"type": tool.type, "function": tool.function.model_dump(exclude={"strict"}, exclude_none=True)}
        for tool in body.tools or ()
    )


def _object(arguments: Any) -> Mapping[str, Any] | None:
    """The arguments of a call that was not enforced, if they are an object; else None: clients expect one, and send
    back what they got with the rest of the conversation. An empty text and null stand for no arguments."""
    if isinstance(arguments, str):
        try:
            arguments = _parsed(arguments) if arguments.strip() else None
        except (ValueError, RecursionError):
            return None
    if arguments is None:
        return {}
    return cast("Mapping[str, Any]", arguments) if isinstance(arguments, Mapping) else None


def _parsed(text: str) -> Any:
    """Parse JSON. Raises `ValueError` for all that is not JSON, also for the constants that Python accepts."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _chosen(functions: Sequence[FunctionSpec], tools: Sequence[ChosenTool]) -> Iterator[FunctionSpec]:
    by_name = {function.name: function for function in reversed(functions)}
    for name in dict.fromkeys(tool.function.name for tool in tools):
        if name not in by_name:
            raise DeclarationError(
                f"tool_choice names {name!r}, which is not one of the tools: {', '.join(reversed(by_name))}.",
                param="tool_choice",
            )
        yield by_name[name]


def _moved(schema: Any, place: str) -> Any:
    """A function's schema, or a part of it, with its references adjusted to its new place."""
    if isinstance(schema, Mapping):
        moved = {key: _moved(value, place) for key, value in schema.items()}
        target = moved.get("$ref")
        if isinstance(target, str) and (target == "#" or target.startswith("#/")):
            moved["$ref"] = place + target[1:]
        return moved
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    return schema
