"""Prefix detection: what requests have in common at their beginning, known before they run, and before values exist.

After section 5.3 of "Parrot: Efficient Serving of LLM-based Applications with Semantic Variable" (OSDI 2024). A
request's content up to a boundary has a hash, H(hash before, segment). A segment is keyed by its content, so that equal
texts are equal whether constant, a variable's value or an output; while its value is unknown, it is keyed by the
identity of its variable. So two requests that will read the same variable share it already, and a conversation's next
turn shares the turn that is still being written. The chain begins with the model (the chat template is covered by the
segments, which contain its text); the tenant's salt enters it behind the published segments.

Besides the ends of segments, a text has inner boundaries at doubling lengths: functions whose constant texts begin
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
"""Characters before the first boundary, at least. Shorter prefixes (the start of a chat template) are not worth
finding."""
APART = 4
"""Least distance between boundaries, in characters: about a token. Boundaries are remembered for as long as the tokens
before them are in a cache; without this bound (empty values, say) there could be more of them than fit in memory."""
_FIRST_CUT = 512
"""Characters of a text up to its first inner boundary; the next ones are at twice that, and so on."""
_MOST_UNKNOWN = 4
"""Number of unknown values that a chain extends over; it ends at the next one, until some become known. So n values
that come one by one cost O(n) links."""

_MOST_CHARS = 1 << 24
_MOST_SEGMENTS = 10_000
"""A chain ends after this many characters or segments. No model reads further, and hashing a request that names one
long value a thousand times would hold up everybody."""

_SIZE = 16

Digests = tuple[tuple[int, bytes], ...]


class Boundary(NamedTuple):
    """A place in a request up to which others may share its content."""

    hash: bytes
    chars: float
    """Number of characters before it, with expected lengths for unknown values."""
    segments: int = 0
    """Number of segments before it; 0 inside a segment, behind an unknown value, or behind an output (whose tokens need
    not be those of its text)."""


@dataclass(slots=True)
class _Unknown:
    """A segment that was keyed by identity, or at which the chain ended, with the state of the chain before it."""

    segment: int
    variable: Variable
    before: bytes
    chars: float
    boundaries: int
    generated: bool
    """Whether an output precedes it."""


@dataclass(slots=True, eq=False)
class Prefix:
    """A request's chain of boundaries, shortest first."""

    request: Request
    variables: dict[VariableId, Variable] = field(default_factory=dict[VariableId, Variable])
    """The variables that the request reads and writes."""
    boundaries: list[Boundary] = field(default_factory=list[Boundary])
    unknown: list[_Unknown] = field(default_factory=list[_Unknown])

    @property
    def known(self) -> int:
        """Number of leading boundaries that are keyed by content alone."""
        return self.unknown[0].boundaries if self.unknown else len(self.boundaries)


Expected = Callable[[Variable], float]
"""The expected length of a value that is not known yet, in characters."""


def prefix_of(request: Request, expected: Expected) -> Prefix:
    """The chain of a request, as far as it can be known now. O(segments + characters to hash)."""
    prefix = Prefix(request, {one.id: one for one in (*request.inputs, *request.outputs)})
    _walk(prefix, 0, _start(request.spec.model), 0.0, expected, generated=False)
    return prefix


def lasting(prefix: Prefix) -> int | None:
    """Number of leading boundaries that `rekey` would leave as they are; None: all, because no value has come."""
    return next((place.boundaries for place in prefix.unknown if place.variable.ready), None)


def rekey(prefix: Prefix, expected: Expected) -> bool:
    """Key segments whose values have come by their content, and rebuild what follows; returns whether any was there."""
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
    """(length, hash) of the beginnings of a text at doubling lengths, then of the whole text."""
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
    """Number of characters of a request's prompt (all but its outputs), with expected lengths for unknown values."""
    variables = {one.id: one for one in request.inputs}
    chars = 0.0
    for part in request.spec.segments:
        if isinstance(part, Text):
            chars += len(part.text)
        elif not isinstance(part, Output):
            variable = variables[part.variable]
            chars += len(variable.value or "") if variable.ready else expected(variable)
    return chars
