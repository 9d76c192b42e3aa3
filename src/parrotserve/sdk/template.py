"""Templates: the docstring of a semantic function, read once, when the function is declared.

    You are an expert software engineer.
    Write python code of {{input:task | strip}}.
    Code: {{output:code}}

* `{{input:x}}` is the value of parameter x, with transforms applied from left to right; `{{output:y}}` is generated
  here; `{{role:system}}`, `{{role:user}}` and `{{role:assistant}}` say who speaks from here on, and the white
  space around them is layout. `{{x}}` alone names a parameter, which may be one annotated `Output`.
* A placeholder must be closed on its line. `{{{{` stands for the text `{{`; every other brace stands for itself, also
  `}}` outside a placeholder, so JSON in a prompt needs no escapes unless two of its objects open at once.
* The text is dedented as by `inspect.cleandoc` (tabs stay tabs), and the white space at its end is dropped.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from keyword import iskeyword

from parrotserve.errors import InvalidTransform
from parrotserve.names import closest
from parrotserve.placeholders import at_bars, source_at
from parrotserve.sdk.blame import Blame, method_advice, receiver_of
from parrotserve.segments import Role
from parrotserve.transforms import Transform, parse_transform


@dataclass(frozen=True, slots=True)
class TextPart:
    """Constant text; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class InputPart:
    """The argument of this name, with transforms applied to it."""

    name: str
    transforms: tuple[Transform, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputPart:
    """An output of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class RolePart:
    """From here on, this role speaks."""

    role: Role


Part = TextPart | InputPart | OutputPart | RolePart


@dataclass(frozen=True, slots=True)
class Template:
    """A docstring, parsed."""

    parts: tuple[Part, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order of appearance."""
        return tuple(part.name for part in self.parts if isinstance(part, OutputPart))

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the parameters that it reads."""
        return frozenset(part.name for part in self.parts if isinstance(part, InputPart))


@dataclass(frozen=True, slots=True)
class _Placeholder:
    source: str
    """What stands between the braces."""
    line: int
    """Its line in the docstring, from 0."""

    def __str__(self) -> str:
        return f"{{{{{self.source}}}}}"


_KINDS = ("input", "output", "role")
_SPEAKERS = tuple(role.value for role in (Role.SYSTEM, Role.USER, Role.ASSISTANT))


def parse_template(docstring: str, *, inputs: Collection[str], outputs: Collection[str], blame: Blame) -> Template:
    """Read a docstring against the parameters of its function.

    `inputs` are the parameters that a caller passes, `outputs` those annotated as outputs. Raises `TemplateError`
    and `InvalidTransform`, which name the function, the line and the placeholder.
    """
    text, skipped = dedent(docstring)
    reader = _Reader(inputs=inputs, outputs=outputs, blame=blame)
    parts = [
        TextPart(piece) if isinstance(piece, str) else reader.read(piece) for piece in _pieces(text, skipped, blame)
    ]
    template = Template(tuple(_laid_out(parts)))
    reader.check_whole(template)
    return template


def dedent(docstring: str) -> tuple[str, int]:
    """The docstring without its margin and outer blank lines, and how many lines were dropped at its start.

    The margin is that of all lines but the first, which loses all of its own indentation (as in `inspect.cleandoc`).
    """
    first, *others = docstring.split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in others if line.strip()), default=0)
    lines = [first.lstrip(), *(line[margin:] for line in others)]
    skipped = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    return "\n".join(lines[skipped:]).rstrip(), skipped


def _pieces(text: str, first_line: int, blame: Blame) -> Iterator[str | _Placeholder]:
    """Constant texts and placeholders, as written."""
    constant: list[str] = []
    at = counted = 0
    line = first_line
    while at < len(text):
        brace = text.find("{{", at)
        constant.append(text[at:] if brace < 0 else text[at:brace])
        if brace < 0:
            break
        if text.startswith("{{{{", brace):
            constant.append("{{")
            at = brace + 4
        elif text.startswith("{{{", brace):
            # `{{{input:x}}}` is a placeholder within braces.
            constant.append("{")
            at = brace + 1
        else:
            line += text.count("\n", counted, brace)
            counted = brace
            source = source_at(text, brace)
            if source is None:
                raise _unreadable(text[brace:], line, blame)
            if any(constant):
                yield "".join(constant)
            constant = []
            yield _Placeholder(source, line)
            at = brace + len("{{") + len(source) + len("}}")
    if any(constant):
        yield "".join(constant)


def _unreadable(rest: str, line: int, blame: Blame) -> Exception:
    start = rest.split("\n", 1)[0]
    if "}}" in start:
        return blame.error(
            "this is not a placeholder; for the text `{{` write `{{{{`.",
            line=line,
            placeholder=start[: start.index("}}") + 2],
        )
    shown = start if len(start) <= 40 else start[:40] + "…"
    return blame.error("no `}}` closes it on its line; for the text `{{` write `{{{{`.", line=line, placeholder=shown)


class _Reader:
    """Gives placeholders their meaning, and checks them against the function and one another."""

    def __init__(self, *, inputs: Collection[str], outputs: Collection[str], blame: Blame) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._blame = blame
        self._seen: set[str] = set()

    def read(self, placeholder: _Placeholder) -> Part:
        head, *transforms = at_bars(placeholder.source)
        kind, colon, name = (word.strip() for word in head.partition(":"))
        if not colon:
            kind, name = self._kind_of(kind, placeholder), kind
        if kind not in _KINDS:
            raise self._error(
                placeholder,
                f"{kind!r} is not a kind of placeholder{closest(kind, _KINDS)} There are: input, output, role.",
            )
        if transforms and kind != "input":
            raise self._error(placeholder, f"only inputs take transforms, and this is an {kind}." if kind == "output"
                              else "only inputs take transforms.")  # fmt: skip
        if kind == "role":
            return self._role(name, placeholder)
        if not name.isidentifier():
            raise self._error(placeholder, f"{name!r} is not a Python name.")
        if kind == "output":
            return self._output(name, placeholder)
        return self._input(name, transforms, placeholder)

    def check_whole(self, template: Template) -> None:
        """Check what only the whole template shows. Raises `TemplateError`."""
        if not template.outputs:
            raise self._blame.error("the docstring has no output; write {{output:name}} where the model shall write.")
        for name in template.outputs:
            if len(template.outputs) > 1 and (name.startswith("_") or iskeyword(name)):
                raise self._blame.error(
                    f"the output {name!r} cannot be a field of the named tuple that a call returns; name it otherwise."
                )
        for name in self._outputs:
            if name not in template.outputs:
                raise self._blame.error(f"the output {name!r} is not in the docstring; write {{{{{name}}}}}.")
        for name in self._inputs:
            if name not in template.inputs:
                if name == receiver_of(self._blame.function):
                    raise self._blame.error(method_advice("SemanticFunction", name))
                raise self._blame.error(
                    f"the parameter {name!r} is not in the docstring; write {{{{input:{name}}}}} or remove it."
                )

    def _kind_of(self, name: str, placeholder: _Placeholder) -> str:
        if name in self._inputs:
            return "input"
        if name in self._outputs:
            return "output"
        braces = "for the text `{{`, write `{{{{`."
        if not name.isidentifier():
            meant = re.fullmatch(rf"({'|'.join(_KINDS)})[\W_]+(\w+)", name)
            advice = f"write {{{{{meant[1]}:{meant[2]}}}}}." if meant else braces
            raise self._error(placeholder, f"{name!r} is not a Python name; {advice}")
        if name in _SPEAKERS:
            raise self._error(placeholder, f"for who speaks from here on, write {{{{role:{name}}}}}; {braces}")
        known = [*self._inputs, *self._outputs]
        raise self._error(
            placeholder,
            f"there is no parameter {name!r}{closest(name, known)} "
            f"To declare an output, write {{{{output:{name}}}}}; {braces}",
        )

    def _role(self, name: str, placeholder: _Placeholder) -> RolePart:
        if name not in _SPEAKERS:
            there_are = ", ".join(_SPEAKERS)
            raise self._error(placeholder, f"{name!r} is not a role{closest(name, _SPEAKERS)} There are: {there_are}.")
        return RolePart(Role(name))

    def _output(self, name: str, placeholder: _Placeholder) -> OutputPart:
        if name in self._inputs:
            raise self._error(placeholder, f"{name!r} is a parameter already; give the output another name.")
        if name in self._seen:
            raise self._error(placeholder, f"the output {name!r} appears twice; each output is generated once.")
        self._seen.add(name)
        return OutputPart(name)

    def _input(self, name: str, transforms: list[str], placeholder: _Placeholder) -> InputPart:
        if name in self._outputs or name in self._seen:
            raise self._error(
                placeholder,
                f"{name!r} is an output of this function: its text stands in the prompt where it is generated.",
            )
        if name not in self._inputs:
            raise self._error(placeholder, f"there is no parameter {name!r}{closest(name, self._inputs)}")
        try:
            return InputPart(name, tuple(parse_transform(source) for source in transforms))
        except InvalidTransform as error:
            blamed = self._blame.error(
                error.message, line=placeholder.line, placeholder=str(placeholder), kind=InvalidTransform
            )
            raise blamed from error

    def _error(self, placeholder: _Placeholder, what: str) -> Exception:
        return self._blame.error(what, line=placeholder.line, placeholder=str(placeholder))


def _laid_out(parts: list[Part]) -> Iterator[Part]:
    """The parts without the white space around role markers, and without texts that this leaves empty."""
    for number, part in enumerate(parts):
        if not isinstance(part, TextPart):
            yield part
            continue
        text = part.text
        if number and isinstance(parts[number - 1], RolePart):
            text = text.lstrip()
        if number + 1 < len(parts) and isinstance(parts[number + 1], RolePart):
            text = text.rstrip()
        if text:
            yield TextPart(text)
