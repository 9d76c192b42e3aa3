"""Why a session's requests run where and when they do, in words. For the SDK, the command line and HTTP alike."""

from collections.abc import Iterator

from parrotserve.criteria import Objective
from parrotserve.ids import VariableId
from parrotserve.protocol import ConsideredView, PlacementView, RequestView, SessionView

Names = dict[VariableId, str]

_BY = {
    "arrival": "the least loaded engine, in order of arrival",
    "group": "with its task group, so that the last member ends soonest",
    "sharers": "with a queued request that begins alike",
    "resident": "its beginning is resident there",
    "harm": "where it and those who are there lose least time",
    "ahead": "it was read there while its inputs were still being written",
    "alone": "alone, for engines died under it",
}


def explain_view(view: SessionView) -> str:
    """All requests of a session, in order of declaration."""
    if not view.requests:
        return f"Session {view.id} has no requests.\n"
    names: Names = {variable.id: variable.name or variable.id for variable in view.variables}
    return "\n".join("\n".join(_request(request, names)) for request in view.requests) + "\n"


def _request(request: RequestView, names: Names) -> Iterator[str]:
    where = f" on {request.engine}" if request.engine else ""
    yield f"{request.function or 'request'} ({request.id}): {request.state}{where}"
    yield f"  objective  {_objective(request, names)}"
    yield f"  prefix     {_prefix(request)}"
    if request.placement is not None:
        yield f"  engine     {_engine(request.placement)}"
        yield from (f"             not {_other(seen, request.placement)}" for seen in request.placement.others)
    yield f"  times      {_times(request)}"


def _objective(request: RequestView, names: Names) -> str:
    because = request.because
    if because is None:
        asked = "nobody waits for what it leads to"
        return f"{request.objective}: {asked}" if request.objective is Objective.THROUGHPUT else str(request.objective)
    result = f"{names.get(because.result, because.result)!r} is waited for ({because.criteria})"
    if because.group is not None:
        stage = "the stage before it" if because.stages <= 1 else f"{because.stages} stages before it"
        return f"{request.objective}: one of {because.group} parallel requests, {stage}; {result}"
    if because.result in request.outputs:
        return f"{request.objective}: it writes what is waited for; {result}"
    return f"{request.objective}: all that comes after waits for it alone; {result}"


def _prefix(request: RequestView) -> str:
    usage, placement = request.usage, request.placement
    if usage.prompt_tokens:
        return f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens were saved"
    if placement is None:
        return "not placed yet"
    found, prompt = placement.chosen.cached_tokens, placement.prompt_tokens
    return f"about {found:,} of {prompt:,} prompt tokens found" if prompt else "not looked for"


def _engine(placement: PlacementView) -> str:
    told = f"{placement.chosen.engine}: {_BY.get(placement.by, placement.by)}"
    return told if placement.chosen.seconds is None else f"{told}; predicted {_predicted(placement.chosen)}"


def _other(seen: ConsideredView, placement: PlacementView) -> str:
    if seen.seconds is None:
        return f"{seen.engine}: no room"
    chosen = placement.chosen
    less = f", {seen.cached_tokens:,} tokens found" if seen.cached_tokens != chosen.cached_tokens else ""
    return f"{seen.engine}: predicted {_predicted(seen)}{less}"


def _predicted(seen: ConsideredView) -> str:
    lost = f", others lose {seen.harm:.3f} s" if seen.harm >= 0.0005 else ""
    return f"{seen.seconds or 0.0:.3f} s{lost}"


def _times(request: RequestView) -> str:
    times = request.timings
    if times.ready is None:
        return "waits for inputs" if times.ended is None else "never had its inputs"
    parts = [f"{times.ready - times.submitted:.3f} s for inputs"]
    if times.started is None:
        return f"{parts[0]}, {'queued since' if times.ended is None else 'never ran'}"
    parts.append(f"{times.started - times.ready:.3f} s queued")
    if times.ended is None:
        return f"{', '.join(parts)}, running since"
    parts.append(f"{times.ended - times.started:.3f} s running")
    return ", ".join(parts)
