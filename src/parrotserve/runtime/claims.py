"""Claims: upper bounds on the tokens of a request's prompt and outputs, known before it runs; and limits on size."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

from parrotserve.config import ServiceConfig
from parrotserve.errors import TooLarge
from parrotserve.graph.events import NewRequest, Submitted
from parrotserve.graph.graph import Graph
from parrotserve.graph.objects import Request, Session
from parrotserve.ids import VariableId, shown
from parrotserve.models.chat import Flat
from parrotserve.protocol import Submit
from parrotserve.runtime.catalog import ServedModel
from parrotserve.runtime.render import Renderer
from parrotserve.segments import Input, Output, Text
from parrotserve.tenancy.ledger import Claim
from parrotserve.tenancy.limits import Limits

_VARIABLES_EACH = 10
"""Limit on the variables of a submit, or of a session, for each request that it may have."""
SEAM = 2
"""Tokens that a boundary between segments may add to the sum of the segments."""

Find = Callable[[str], ServedModel | None]
SizeOf = Callable[[VariableId], int]


def check_variables(body: Submit, config: ServiceConfig) -> None:
    """Raises `TooLarge` if a submit has too many variables; to be called before they are processed."""
    most = _VARIABLES_EACH * config.max_batch_requests
    if len(body.variables) > most:
        raise TooLarge(
            f"A submit may have {most} variables, and this one has {len(body.variables)}: send it in parts.",
            limit="max_batch_requests",
        )


def check_size(batch: Submitted, session: Session | None, limits: Limits, config: ServiceConfig) -> None:
    """Raises `TooLarge` for a batch, a graph or an output beyond what the tenant and the service allow.

    Objects that the session already has are not counted again: a client whose connection broke sends its batch again,
    which changes nothing.
    """
    size = len(batch.requests) + len(batch.calls)
    if size > config.max_batch_requests:
        raise TooLarge(
            f"A submit may have {config.max_batch_requests} requests and native calls, and this one has {size}: send "
            "it in parts.",
            limit="max_batch_requests",
        )
    variables = session.variables if session is not None else {}
    more = sum(spec.id not in variables for spec in batch.variables)
    most = _VARIABLES_EACH * config.max_session_requests
    if more and more + len(variables) > most:
        raise TooLarge(
            f"A session may have {most} variables; this one has {len(variables)}, and this would add {more}. Use "
            "several sessions.",
            limit="max_session_requests",
        )
    requests = {spec.id: spec for spec in batch.requests if session is None or spec.id not in session.requests}
    calls = {spec.id for spec in batch.calls if session is None or spec.id not in session.calls}
    most = min(config.max_session_requests, limits.session_requests or config.max_session_requests)
    held = len(session.requests) + len(session.calls) if session is not None else 0
    more = len(requests) + len(calls)
    if more and more + held > most:
        raise TooLarge(
            f"A session may have {most} requests and native calls; this one has {held}, and this would add {more}. "
            "Use several sessions.",
            limit="session_requests",
        )
    if limits.output_tokens is not None:
        for spec in requests.values():
            if most_output(spec) > limits.output_tokens:
                raise TooLarge(
                    f"{spec.function or shown(spec.id)!r} may write {most_output(spec)} tokens, and a request of this "
                    f"tenant at most {limits.output_tokens}: lower max_tokens.",
                    limit="output_tokens",
                )


def most_of_texts(segments: Iterable[Flat], renderer: Renderer) -> int:
    """An upper bound on the tokens of a request's constant texts. Slow: texts are tokenised unless they are long."""
    texts = (segment for segment in segments if isinstance(segment, Text))
    return sum(len(text.tokens) or renderer.most_tokens(text.text) + SEAM for text in texts)


def claims_of_batch(batch: Submitted, graph: Graph, find: Find, *, count: bool) -> list[Claim]:
    """Claims of a batch's new requests. Without `count` (no limits on tokens) their tokens are not counted."""
    new = list({spec.id: spec for spec in batch.requests if spec.id not in graph.requests}.values())
    if not count:
        return [Claim(spec.id, 0) for spec in new]
    values = {variable.id: variable.value for variable in batch.variables if variable.value is not None}
    written = {output.variable: output.sampling.max_tokens for spec in new for output in _outputs(spec)}

    @cache
    def size(variable: VariableId) -> int:
        if variable in values:
            return _bytes(values[variable])
        return written[variable] if variable in written else _size_in(graph, variable)

    return [_claim(spec, find, size) for spec in new]


def claims_of(requests: Iterable[Request], graph: Graph, find: Find, *, count: bool) -> list[Claim]:
    """Claims of requests that may run again."""
    if not count:
        return [Claim(request.id, 0) for request in requests]
    size = cache(partial(_size_in, graph))
    return [_claim(request.spec, find, size) for request in requests]


def most_output(spec: NewRequest) -> int:
    """The tokens that a request may write."""
    return sum(output.sampling.max_tokens for output in _outputs(spec))


def _outputs(spec: NewRequest) -> Iterator[Output]:
    return (segment for segment in spec.segments if isinstance(segment, Output))


def _claim(spec: NewRequest, find: Find, size: SizeOf) -> Claim:
    # If the limit on tokens was set after admission, bytes are counted: tokenising would block the event loop.
    prompt = spec.text_tokens if spec.text_tokens is not None else _bytes_of_texts(spec)
    for segment in spec.segments:
        match segment:
            case Text():
                pass
            case Input():
                prompt += size(segment.variable) + SEAM
            case Output():
                prompt += SEAM
    most, model = prompt + most_output(spec), find(spec.model)  # None while that is loaded for a restored session
    return Claim(spec.id, most if model is None else min(most, model.context_length))


def _bytes_of_texts(spec: NewRequest) -> int:
    texts = (segment for segment in spec.segments if isinstance(segment, Text))
    return sum(len(text.tokens) or _bytes(text.text) + SEAM for text in texts)


def _size_in(graph: Graph, variable: VariableId) -> int:
    """The most tokens that a variable of the graph has, or will have."""
    found = graph.variables.get(variable)
    if found is None:
        return 0  # the machine refuses it
    if found.value is not None:
        return _bytes(found.value)
    producer = found.producer
    if not isinstance(producer, Request):
        return 0  # what a native function returns, or a client sets, is unknown: the claim is resized once it is known
    return next(output.sampling.max_tokens for output in _outputs(producer.spec) if output.variable == variable)


def _bytes(text: str) -> int:
    # No token of the supported vocabularies is shorter than a byte.
    return len(text.encode(errors="replace"))
