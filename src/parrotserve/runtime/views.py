"""The machine's pictures of its state, as the wire shows them."""

from parrotserve.errors import ParrotError
from parrotserve.graph import snapshots
from parrotserve.protocol import CallView, ErrorBody, RequestView, SessionView, Timings, VariableView


def session_view(session: snapshots.SessionSnapshot) -> SessionView:
    """A session's graph."""
    return SessionView(
        id=session.id,
        lease_seconds=session.lease_seconds,
        variables=tuple(map(_variable, session.variables)),
        requests=tuple(map(_request, session.requests)),
        calls=tuple(map(_call, session.calls)),
    )


def _variable(variable: snapshots.VariableSnapshot) -> VariableView:
    return VariableView(
        id=variable.id,
        name=variable.name,
        state=variable.state,
        producer=variable.producer,
        value=variable.value,
        error=_error(variable.error),
    )


def _request(request: snapshots.RequestSnapshot) -> RequestView:
    return RequestView(
        id=request.id,
        function=request.function,
        model=request.model,
        state=request.state,
        inputs=request.inputs,
        outputs=request.outputs,
        objective=request.objective,
        engine=request.engine,
        epoch=request.epoch,
        timings=_timings(request.timings),
        usage=request.usage,
        error=_error(request.error),
    )


def _call(call: snapshots.CallSnapshot) -> CallView:
    return CallView(
        id=call.id,
        function=call.function,
        state=call.state,
        inputs=call.inputs,
        output=call.output,
        timings=_timings(call.timings),
        error=_error(call.error),
    )


def _timings(timings: snapshots.Timings) -> Timings:
    return Timings(submitted=timings.submitted, ready=timings.ready, started=timings.started, ended=timings.ended)


def _error(error: ParrotError | None) -> ErrorBody | None:
    return ErrorBody.of(error) if error is not None else None
