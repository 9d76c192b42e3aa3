"""Views: the machine's snapshots, and engines, as the wire's models."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import islice

from parrotserve.errors import ParrotError
from parrotserve.graph import snapshots
from parrotserve.graph.placements import Considered, Placement
from parrotserve.ids import shown
from parrotserve.listing import EngineView, SessionList, SessionSummary
from parrotserve.protocol import (
    BecauseView,
    CallView,
    ConsideredView,
    ErrorBody,
    PlacementView,
    RequestView,
    SessionView,
    Timings,
    VariableView,
)
from parrotserve.runtime.keeper import EngineKeeper
from parrotserve.sampling import Usage


def session_view(session: snapshots.SessionSnapshot) -> SessionView:
    """A session's graph."""
    return SessionView(
        id=shown(session.id),
        lease_seconds=session.lease_seconds,
        usage=total_usage(request.usage for request in session.requests),
        variables=tuple(map(_variable, session.variables)),
        requests=tuple(map(_request, session.requests)),
        calls=tuple(map(_call, session.calls)),
    )


def session_json(session: snapshots.SessionSnapshot) -> str:
    """The same as JSON, dumped object by object: one call for all of a big graph would block all other threads."""
    bare = session_view(replace(session, variables=(), requests=(), calls=()))
    head = bare.model_dump(mode="json", exclude={"variables", "requests", "calls"})
    head["usage"] = asdict(total_usage(request.usage for request in session.requests))
    lists = (
        ("variables", map(_variable, session.variables)),
        ("requests", map(_request, session.requests)),
        ("calls", map(_call, session.calls)),
    )
    told = (f'"{name}":[{",".join(one.model_dump_json() for one in items)}]' for name, items in lists)
    return f"{json.dumps(head)[:-1]},{','.join(told)}}}"


def session_list(sessions: Iterable[snapshots.SessionSummary], *, most: int, clock: float, wall: float) -> SessionList:
    """The first `most` of these. `clock` and `wall` are the present time of the machine's clock and the wall clock."""
    found = list(islice(sessions, most + 1))
    page = tuple(_summary(session, clock, wall) for session in found[:most])
    return SessionList(data=page, next=found[most - 1].number if len(found) > most else None)


def _summary(session: snapshots.SessionSummary, clock: float, wall: float) -> SessionSummary:
    return SessionSummary(
        id=shown(session.id),
        tenant=session.tenant,
        opened=_dated(session.began, clock, wall),
        last_used=_dated(clock if session.attached else session.used, clock, wall),
        lease_seconds=session.lease_seconds,
        exchanges=session.attached,
        variables=session.variables,
        requests={str(state): count for state, count in session.requests.items()},
        calls={str(state): count for state, count in session.calls.items()},
    )


def _dated(moment: float, clock: float, wall: float) -> float:
    return round(wall - (clock - moment), 3)


def total_usage(usages: Iterable[Usage]) -> Usage:
    """The sum of the usage of several requests."""
    total = Usage()
    for one in usages:
        total = total.plus(one)
    return total


def _variable(variable: snapshots.VariableSnapshot) -> VariableView:
    return VariableView(
        id=shown(variable.id),
        name=variable.name,
        state=variable.state,
        producer=None if variable.producer is None else shown(variable.producer),
        value=variable.value,
        error=_error(variable.error),
    )


def _request(request: snapshots.RequestSnapshot) -> RequestView:
    return RequestView(
        id=shown(request.id),
        function=request.function,
        model=request.model,
        state=request.state,
        inputs=tuple(map(shown, request.inputs)),
        outputs=tuple(map(shown, request.outputs)),
        objective=request.objective,
        engine=request.engine,
        epoch=request.epoch,
        timings=_timings(request.timings),
        usage=request.usage,
        error=_error(request.error),
        because=_because(request.because),
        placement=_placement(request.placement),
    )


def _because(because: snapshots.Because | None) -> BecauseView | None:
    if because is None:
        return None
    return BecauseView(
        result=shown(because.result), criteria=because.criteria, stages=because.stages, group=because.group
    )


def _placement(placement: Placement | None) -> PlacementView | None:
    if placement is None:
        return None
    return PlacementView(
        by=placement.by,
        prompt_tokens=round(placement.prompt_tokens),
        chosen=_considered(placement.chosen),
        others=tuple(map(_considered, placement.others)),
    )


def _considered(seen: Considered) -> ConsideredView:
    return ConsideredView(
        engine=seen.engine,
        seconds=seen.seconds,
        lacks=seen.lacks,
        cached_tokens=round(seen.cached_tokens),
        harm=seen.harm,
    )


def _call(call: snapshots.CallSnapshot) -> CallView:
    return CallView(
        id=shown(call.id),
        function=call.function,
        state=call.state,
        inputs=tuple(map(shown, call.inputs)),
        output=shown(call.output),
        timings=_timings(call.timings),
        error=_error(call.error),
    )


def _timings(timings: snapshots.Timings) -> Timings:
    return Timings(submitted=timings.submitted, ready=timings.ready, started=timings.started, ended=timings.ended)


def _error(error: ParrotError | None) -> ErrorBody | None:
    return ErrorBody.of(error) if error is not None else None


def engine_view(keeper: EngineKeeper) -> EngineView:
    """An engine and how busy it is."""
    page = keeper.description.page_tokens if keeper.description else 0
    beat = keeper.heartbeat
    return EngineView(
        id=keeper.engine,
        model=keeper.model,
        state=keeper.state,
        running=beat.running,
        waiting=beat.waiting,
        used_tokens=beat.used_pages * page,
        cached_tokens=beat.cached_pages * page,
        free_tokens=beat.free_pages * page,
        error=keeper.error.message if keeper.error is not None else None,
        retry_after=round(retry_after, 1) if (retry_after := keeper.retry_after) is not None else None,
    )
