"""Sessions that were made for one request, beside a note of what was asked for."""

from dataclasses import dataclass

from parrotserve.errors import ParrotError
from parrotserve.graph.snapshots import SessionSnapshot
from parrotserve.graph.states import VariableState
from parrotserve.ids import RequestId, VariableId, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What such a session says."""

    note: str
    began: float
    """By the machine's clock, in seconds."""
    request: RequestId
    variable: VariableId
    """The variable with the answer."""
    is_answered: bool
    error: ParrotError | None
    """Why there is no answer; None also while there is none yet."""


def noted(picture: SessionSnapshot, *, note: str) -> Noted | None:
    """What a session says; None if it has no request, or no variable `note` with a value."""
    written = next((each.value for each in picture.variables if shown(each.id) == note), None)
    request = next(iter(picture.requests), None)
    if written is None or request is None:
        return None
    answer = next(each for each in picture.variables if each.id == request.outputs[0])
    return Noted(
        note=written,
        began=picture.began,
        request=shown(request.id),
        variable=shown(answer.id),
        is_answered=answer.state is VariableState.READY,
        error=answer.error,
    )
