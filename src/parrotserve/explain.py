"""Explains in words why a session's requests run where and when they do, for the SDK, the command line and HTTP."""

import textwrap
from collections import Counter
from collections.abc import Iterator

from parrotserve.criteria import Objective
from parrotserve.ids import VariableId
from parrotserve.protocol import CallView, ConsideredView, PlacementView, RequestView, SessionView, VariableView

Variables = dict[VariableId, tuple[str, str]]
"""The name to show and the state of each variable."""

WIDTH = 79
"""Columns of a terminal, less one: some terminals wrap lines that fill all of them."""

_BY = {
    "arrival": "the least loaded engine, in order of arrival",
    "group": "with its task group, so that the last member ends soonest",
    "sharers": "with a queued request that begins alike",
    "resident": "its prefix is in that engine's cache",
    "harm": "where it and those who are there lose least time",
    "ahead": "it was read there while its inputs were still being written",
    "alone": "alone, because engines died while they ran it",
}
_LACKS = {
    "room": "no room",
    "kept": "what room there was is kept for other work",
    "tenant": "its tenant may add no more there beside others",
}


def explain_view(view: SessionView) -> str:
    """All requests of a session, in order of declaration, then its native calls."""
    if not (view.requests or view.calls):
        return f"Session {view.id} has no requests.\n"
    variables = _variables(view)
    lines = [f"Session {view.id}, {_count(len(view.requests), 'request')}"]
    if view.calls:
        lines[0] += f", {_count(len(view.calls), 'native call')}"
    for request in view.requests:
        lines += _request(request, variables)
    for call in view.calls:
        lines += _call(call, variables)
    return "\n".join(lines) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _request(request: RequestView, variables: Variables) -> Iterator[str]:
    where = f" on {request.engine}" if request.engine else ""
    yield from _folded("", f"{request.function or 'request'} ({request.id}): {request.state}{where}")
    yield from _folded("objective", _objective(request, variables))
    yield from _folded("prefix", _prefix(request))
    if request.placement is not None:
        yield from _folded("engine", _engine(request.placement))
        for seen in request.placement.others:
            yield from _folded(" ", f"not {_other(seen, request.placement)}")
    yield from _folded("times", _times(request, variables))
    if request.error is not None:
        yield from _folded("error", f"{request.error.code}: {request.error.message}")


def _call(call: CallView, variables: Variables) -> Iterator[str]:
    yield from _folded("", f"{call.function or 'native call'} ({call.id}): {call.state}")
    yield from _folded("times", _times(call, variables))
    if call.error is not None:
        yield from _folded("error", f"{call.error.code}: {call.error.message}")


def _folded(label: str, text: str) -> list[str]:
    """A label and its text, wrapped, with a hanging indent."""
    start = f"  {label:<11}" if label else ""
    further = " " * (len(start) + 2)
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=further, break_on_hyphens=False)


def _objective(request: RequestView, variables: Variables) -> str:
    because = request.because
    if because is None:
        asked = "nobody waits for what it leads to"
        return f"{request.objective}: {asked}" if request.objective is Objective.THROUGHPUT else str(request.objective)
    result = f"{_name(because.result, variables)} is waited for ({because.criteria})"
    if because.group is not None:
        stage = "the stage before it" if because.stages <= 1 else f"{because.stages} stages before it"
        return f"{request.objective}: one of {because.group} parallel requests, {stage}; {result}"
    if because.result in request.outputs:
        return f"{request.objective}: it writes what is waited for; {result}"
    return f"{request.objective}: everything after it depends on it alone; {result}"


def _prefix(request: RequestView) -> str:
    usage, placement = request.usage, request.placement
    found, prompt = (0, 0) if placement is None else (placement.chosen.cached_tokens, placement.prompt_tokens)
    if usage.prompt_tokens:
        saved = f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens came from the cache"
        return f"{saved}; about {found:,} were expected" if prompt else saved
    if placement is None:
        return "not placed yet" if request.timings.ended is None else "never placed"
    return f"about {found:,} of {prompt:,} prompt tokens expected in the cache" if prompt else "not looked for"


def _engine(placement: PlacementView) -> str:
    told = f"{placement.chosen.engine}: {_BY.get(placement.by, placement.by)}"
    return told if placement.chosen.seconds is None else f"{told}; predicted {_predicted(placement.chosen)}"


def _other(seen: ConsideredView, placement: PlacementView) -> str:
    if seen.seconds is None:
        return f"{seen.engine}: {_LACKS.get(seen.lacks or 'room', seen.lacks)}"
    chosen = placement.chosen
    less = f", {seen.cached_tokens:,} tokens in its cache" if seen.cached_tokens != chosen.cached_tokens else ""
    return f"{seen.engine}: predicted {_predicted(seen)}{less}"


def _predicted(seen: ConsideredView) -> str:
    lost = f", others lose {seen.harm:.3f} s" if seen.harm >= 0.0005 else ""
    return f"{seen.seconds or 0.0:.3f} s{lost}"


def _times(producer: RequestView | CallView, variables: Variables) -> str:
    times = producer.timings
    if times.ready is None:
        return f"waits for {_missing(producer, variables)}" if times.ended is None else "never had its inputs"
    parts = [f"{times.ready - times.submitted:.3f} s for inputs"]
    if times.started is None:
        return f"{parts[0]}, {'still queued' if times.ended is None else 'never ran'}"
    parts.append(f"{times.started - times.ready:.3f} s queued")
    if times.ended is None:
        return f"{', '.join(parts)}, still running"
    parts.append(f"{times.ended - times.started:.3f} s running")
    return ", ".join(parts)


def _missing(producer: RequestView | CallView, variables: Variables) -> str:
    told = [
        f"{name} ({'which nobody has set' if state == 'empty' else state})"
        for name, state in (variables[each] for each in producer.inputs if each in variables)
        if state != "ready"
    ]
    return ", ".join(told) or "inputs"


def _variables(view: SessionView) -> Variables:
    bearers = Counter(each.name for each in view.variables)

    def name(variable: VariableView) -> str:
        shown = repr(variable.name or variable.id)
        alone = variable.name is None or bearers[variable.name] == 1 or variable.producer is None
        return shown if alone else f"{shown} of {variable.producer}"

    return {each.id: (name(each), each.state) for each in view.variables}


def _name(variable: VariableId, variables: Variables) -> str:
    return variables[variable][0] if variable in variables else repr(variable)
