"""Prefix detection: what requests have in common at their beginning, known before they run, and before values exist.

After section 5.3 of "Parrot: Efficient Serving of LLM-based Applications with Semantic Variable" (OSDI 2024). A
request's content up to a boundary has a hash, H(hash before, segment). A segment is keyed by its content: equal text is
equal whether it is constant, a variable's value, or an output; while a value is unknown, by the identity of its
variable. So two requests that will read the same variable share it already, and a conversation's next turn shares
the turn that is still being written. The model (and with it the chat template, whose text is part of the
segments) and the tenant's salt begin the chain.

Beside the ends of segments, a text has boundaries at doubling lengths inside: functions whose constant texts begin
alike, and differ later, share at least half of what they have in common.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from parrotserve.graph.objects import Request, Variable
from parrotserve.ids import VariableId
from parrotserve.segments import Input, Output, Text

SHORTEST = 128
"""Characters. Shorter beginnings (what a chat template writes first) are not worth being found."""
APART = 4
"""Characters from one boundary to the next, at least: about a token. Boundaries are remembered for as long as tokens
before them are in a cache, and there would be more of them than memory for them: of a value that is empty, say."""
_FIRST_CUT = 512
"""Characters of a text up to its first inner boundary; the next ones are at twice that, and so on."""
_MOST_UNKNOWN = 4
"""Unknown values that a chain passes; it ends at the next one, until some of these are known. So n values that come
one by one cost O(n) links."""

_MOST_CHARS = 1 << 24
_MOST_SEGMENTS = 10_000
"""A chain ends behind so many characters or segments: no model reads on, and whoever names one long value a thousand
times in a request would have everybody wait for the hashes."""

_SIZE = 16

Digests = tuple[tuple[int, bytes], ...]


class Boundary(NamedTuple):
    """A place in a request that others may share up to."""

    hash: bytes
    chars: float
    """Characters before it; expected ones, where values are unknown."""
    segments: int = 0
    """Segments before it, if it is at the end of one whose tokens are those of its text; else 0."""


@dataclass(slots=True)
class _Unknown:
    """A segment that was keyed by identity, or at which the chain ended, and what came before it."""

    segment: int
    variable: Variable
    before: bytes
    chars: float
    boundaries: int
    generated: bool
    """Whether an output comes before it."""


@dataclass(slots=True, eq=False)
class Prefix:
    """A request's chain of boundaries, shortest first."""

    request: Request
    variables: dict[VariableId, Variable] = field(default_factory=dict[VariableId, Variable])
    """That it reads and writes."""
    boundaries: list[Boundary] = field(default_factory=list[Boundary])
    unknown: list[_Unknown] = field(default_factory=list[_Unknown])

    @property
    def known(self) -> int:
        """How many of the boundaries are keyed by content alone."""
        return self.unknown[0].boundaries if self.unknown else len(self.boundaries)


Expected = Callable[[Variable], float]
"""How many characters a value that is not known yet is expected to have."""


def prefix_of(request: Request, expected: Expected) -> Prefix:
    """The chain of a request, as far as it can be known now. O(segments), and of long texts their length."""
    prefix = Prefix(request, {one.id: one for one in (*request.inputs, *request.outputs)})
    _walk(prefix, 0, _start(request.spec.model), 0.0, expected, generated=False)
    return prefix


def lasting(prefix: Prefix) -> int | None:
    """How many of its boundaries stay as they are when it is keyed again; None: all, for no value has come."""
    return next((place.boundaries for place in prefix.unknown if place.variable.ready), None)


def rekey(prefix: Prefix, expected: Expected) -> bool:
    """Values have come: key what they are in by their content, and what follows. Whether anything changed."""
    for number, place in enumerate(prefix.unknown):
        if place.variable.ready:
            del prefix.unknown[number:]
            del prefix.boundaries[place.boundaries :]
            _walk(prefix, place.segment, place.before, place.chars, expected, generated=place.generated)
            return True
    return False


def _walk(
    prefix: Prefix, segment: int, hash_before: bytes, chars: float, expected: Expected, *, generated: bool
) -> None:
    spec, tenant = prefix.request.spec, prefix.request.session.tenant
    for index in range(segment, len(spec.segments)):
        if chars > _MOST_CHARS or index >= _MOST_SEGMENTS:
            return
        unsalted = hash_before
        if index == spec.published:
            hash_before = _link(hash_before, b"salt", tenant.encode())
        part, before_it = spec.segments[index], generated
        generated = generated or isinstance(part, Output)
        if isinstance(part, Text):
            tag = b"template" if part.template else b"tokens" if part.tokens else b""
            digests = _digests(part.text)
        else:
            variable = prefix.variables[part.variable]
            tag = b"".join(str(one).encode() for one in part.transforms) if isinstance(part, Input) else b""
            if not variable.ready:
                place = _Unknown(index, variable, unsalted, chars, len(prefix.boundaries), before_it)
                prefix.unknown.append(place)
                if len(prefix.unknown) > _MOST_UNKNOWN:
                    return
                hash_before = _link(hash_before, b"variable" + tag, variable.id.encode())
                chars += expected(variable)
                _note(prefix, hash_before, chars)
                continue
            if not variable.digests:
                variable.digests = _digests(variable.value or "")
            digests = variable.digests[-1:] if tag else variable.digests
        before, start = hash_before, chars
        for length, digest in digests:
            hash_before, chars = _link(before, tag, digest), start + length
            _note(prefix, hash_before, chars, 0 if generated or length < digests[-1][0] else index + 1)


def _note(prefix: Prefix, hash_now: bytes, chars: float, segments: int = 0) -> None:
    least = prefix.boundaries[-1].chars + APART if prefix.boundaries else SHORTEST
    if chars >= least:
        prefix.boundaries.append(Boundary(hash_now, chars, segments))


def _start(model: str) -> bytes:
    return blake2b(model.encode(), digest_size=_SIZE).digest()


def _link(before: bytes, tag: bytes, content: bytes) -> bytes:
    return blake2b(before + tag + b"\0" + content, digest_size=_SIZE).digest()


def _digests(text: str) -> Digests:
    """Of the whole text, which comes last, and of its beginnings of doubling length."""
    hasher, start, found = blake2b(digest_size=_SIZE), 0, list[tuple[int, bytes]]()
    for end in (*_cuts(len(text)), len(text)):
        hasher.update(text[start:end].encode(errors="surrogatepass"))
        found.append((end, hasher.digest()))
        start = end
    return tuple(found)


def _cuts(length: int) -> Iterator[int]:
    cut = _FIRST_CUT
    while cut + APART <= length:
        yield cut
        cut *= 2


def prompt_chars(request: Request, expected: Expected) -> float:
    """Characters of a request's prompt: all but its outputs."""
    variables = {one.id: one for one in request.inputs}
    chars = 0.0
    for part in request.spec.segments:
        if isinstance(part, Text):
            chars += len(part.text)
        elif not isinstance(part, Output):
            variable = variables[part.variable]
            chars += len(variable.value or "") if variable.ready else expected(variable)
    return chars
