"""Legal transitions are a table; an illegal one tells the object's history."""

import pytest

from parrotserve.graph.events import NewVariable
from parrotserve.graph.objects import Call, Request, Variable
from parrotserve.graph.states import HISTORY_LENGTH, ProducerState, VariableState


def variable() -> Variable:
    return Variable(declared=NewVariable("v-1", "code"), tenant="t")


def test_an_illegal_transition_raises_with_the_history():
    one = variable()
    one.move(VariableState.PRODUCING, 1.0, "'Write' (r-1) produces it")
    one.move(VariableState.READY, 2.5, "its value is known")
    with pytest.raises(RuntimeError) as caught:
        one.move(VariableState.FAILED, 3.0, "too late")
    assert str(caught.value) == (
        "variable 'code' (v-1) cannot go from ready to failed (too late). "
        "History: 1.000 producing ('Write' (r-1) produces it); 2.500 ready (its value is known)."
    )
    assert one.state is VariableState.READY


def test_the_history_is_bounded_and_keeps_what_is_newest():
    one = variable()
    for number in range(HISTORY_LENGTH):
        one.move(VariableState.CANCELLED, number, "cancelled")
        one.move(VariableState.EMPTY, number, "retried")
    assert len(one.history) == HISTORY_LENGTH
    assert one.history[-1] == (HISTORY_LENGTH - 1, "empty", "retried")


@pytest.mark.parametrize("kind", [Variable, Request, Call])
def test_ready_and_done_are_final_and_every_other_state_leads_to_them(kind: type):
    table, final = kind.transitions, {"ready", "done"}
    assert {state for state, successors in table.items() if not successors} == final & table.keys()
    for state in table:
        reachable = {state}
        while (more := reachable.union(*(table[one] for one in reachable))) != reachable:
            reachable = more
        assert reachable & final


def test_requests_and_native_calls_have_their_own_states():
    assert set(Request.transitions) == set(ProducerState) - {ProducerState.OFFERED}
    assert set(Call.transitions) == set(ProducerState) - {ProducerState.QUEUED, ProducerState.RUNNING}
