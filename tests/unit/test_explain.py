"""What is told of a session's requests."""

import json

from parrotserve.criteria import Criteria, Objective
from parrotserve.explain import explain_view
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, VariableId
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
from parrotserve.sampling import Usage
from parrotserve.sdk.explain import Explanation

CODE = VariableView(id=VariableId("v-1"), name="code", state="ready", producer="r-1", value="x", error=None)


def seen(
    engine: str, seconds: float | None = 1.25, cached: int = 0, harm: float = 0.0, lacks: str | None = None
) -> ConsideredView:
    return ConsideredView(engine=EngineId(engine), seconds=seconds, lacks=lacks, cached_tokens=cached, harm=harm)


def request(**fields: object) -> RequestView:
    whole: dict[str, object] = {
        "id": RequestId("r-1"), "function": "Write", "model": "m", "state": "running", "inputs": (), "outputs": (),
        "objective": Objective.LATENCY, "engine": EngineId("m-0"), "epoch": 0, "timings": Timings(submitted=0.0),
        "usage": Usage(), "error": None, "because": None, "placement": None,
    }  # fmt: skip
    return RequestView.model_validate(whole | fields)


def told(*variables: VariableView, **fields: object) -> list[str]:
    view = SessionView(
        id=SessionId("s"), lease_seconds=1, variables=(CODE, *variables), requests=(request(**fields),), calls=()
    )
    heading, *lines = explain_view(view).splitlines()
    assert heading == "Session s, 1 request"
    return lines


def lines(label: str, *variables: VariableView, **fields: object) -> list[str]:
    """What is told under a label, without the breaks that make it fit a terminal."""
    under: list[str] = []
    found = False
    for one in told(*variables, **fields):
        found = one[2:].startswith(label) or (found and one.startswith(" " * 13))
        if found and (fresh := one[13:]):
            begun = under and fresh.startswith("  ")
            under[len(under) - bool(begun) :] = [f"{under[-1]} {fresh.strip()}" if begun else fresh]
    return under


def line(label: str, *variables: VariableView, **fields: object) -> str:
    (one,) = lines(label, *variables, **fields)
    return one


def variable(name: str, state: str) -> VariableView:
    return VariableView(id=VariableId(f"v-{name}"), name=name, state=state, producer=None, value=None, error=None)


def because(stages: int = 0, group: int | None = None) -> BecauseView:
    return BecauseView(result=VariableId("v-1"), criteria=Criteria.TPOT, stages=stages, group=group)


def test_the_head_says_which_request_and_where():
    assert told()[0] == "Write (r-1): running on m-0"
    assert told(engine=None, state="waiting")[0] == "Write (r-1): waiting"


def test_who_writes_what_a_native_call_makes_the_result_of_does_not_write_the_result():
    told = line("objective", because=because(), outputs=(VariableId("v-2"),))
    assert told == "latency: everything after it depends on it alone; 'code' is waited for (tpot)"
    grouped = line("objective", objective=Objective.GROUP, because=because(group=3))
    assert grouped == "group: one of 3 parallel requests, the stage before it; 'code' is waited for (tpot)"


def test_an_objective_has_its_reason():
    written = line("objective", because=because(), outputs=(VariableId("v-1"),))
    assert written == "latency: it writes what is waited for; 'code' is waited for (tpot)"
    assert "everything after it depends on it alone" in line("objective", because=because(stages=2))
    grouped = line("objective", objective=Objective.GROUP, because=because(stages=1, group=8))
    assert grouped == "group: one of 8 parallel requests, the stage before it; 'code' is waited for (tpot)"
    assert line("objective", objective=Objective.THROUGHPUT) == "throughput: nobody waits for what it leads to"


def test_what_was_saved_is_told_as_found_and_then_as_it_was():
    placement = PlacementView(by="resident", prompt_tokens=600, chosen=seen("m-0", cached=512), others=())
    assert line("prefix") == "not placed yet"
    assert line("prefix", placement=placement) == "about 512 of 600 prompt tokens expected in the cache"
    usage = Usage(prompt_tokens=1610, cached_tokens=1500, output_tokens=9)
    saved = line("prefix", placement=placement, usage=usage)
    assert saved == "1,500 of 1,610 prompt tokens came from the cache; about 512 were expected"
    assert line("prefix", usage=usage) == "1,500 of 1,610 prompt tokens came from the cache"
    assert line("prefix", timings=Timings(submitted=0.0, ended=1.0)) == "never placed"


def test_the_engine_is_told_and_why_not_the_others():
    full = (seen("m-2", None, lacks="room"), seen("m-3", None, lacks="tenant"), seen("m-4", None, lacks="kept"))
    others = (seen("m-1", 2.5, cached=9, harm=0.25), *full)
    placement = PlacementView(by="resident", prompt_tokens=1, chosen=seen("m-0", harm=0.1), others=others)
    assert lines("engine", placement=placement) == [
        "m-0: its prefix is in that engine's cache; predicted 1.250 s, others lose 0.100 s",
        "not m-1: predicted 2.500 s, others lose 0.250 s, 9 tokens in its cache",
        "not m-2: no room",
        "not m-3: its tenant may add no more there beside others",
        "not m-4: what room there was is kept for other work",
    ]


def test_times_are_told_as_far_as_they_are_known():
    def times(**known: float) -> str:
        return line("times", timings=Timings(submitted=1.0, **known))

    assert times() == "waits for inputs"
    assert times(ended=2.0) == "never had its inputs"
    assert times(ready=1.5) == "0.500 s for inputs, still queued"
    assert times(ready=1.5, ended=2.0) == "0.500 s for inputs, never ran"
    assert times(ready=1.5, started=1.75) == "0.500 s for inputs, 0.250 s queued, still running"
    assert times(ready=1.5, started=1.75, ended=2.0) == "0.500 s for inputs, 0.250 s queued, 0.250 s running"


def test_inputs_that_are_waited_for_have_names():
    names = (variable("task", "empty"), variable("plan", "producing"), variable("name", "ready"))
    inputs = tuple(each.id for each in names)
    waits = line("times", *names, inputs=inputs, timings=Timings(submitted=1.0))
    assert waits == "waits for 'task' (which nobody has set), 'plan' (producing)"


def test_of_variables_with_one_name_the_producer_is_told():
    other = VariableView(id=VariableId("v-2"), name="code", state="producing", producer="r-2", value=None, error=None)
    objective = line("objective", other, outputs=(VariableId("v-1"),), because=because())
    assert objective == "latency: it writes what is waited for; 'code' of r-1 is waited for (tpot)"
    assert line("times", other, inputs=(other.id,)) == "waits for 'code' of r-2 (producing)"
    unmade = variable("code", "empty")
    assert line("times", unmade, inputs=(unmade.id,)) == "waits for 'code' (which nobody has set)"


def test_why_it_failed_is_told():
    error = ErrorBody(code="context_exceeded", message="Shorten the prompt.")
    assert line("error", state="failed", error=error) == "context_exceeded: Shorten the prompt."
    assert lines("error") == []


def test_native_calls_come_after_requests():
    call = CallView(
        id=CallId("c-1"), function="count", state="done", inputs=(), output=VariableId("v-1"), error=None,
        timings=Timings(submitted=0.0, ready=0.5, started=0.5, ended=1.5),
    )  # fmt: skip
    broken = call.model_copy(
        update={"state": "failed", "error": ErrorBody(code="native_call_failed", message="It raised.")}
    )
    view = SessionView(
        id=SessionId("s"), lease_seconds=1, variables=(CODE,), requests=(request(),), calls=(call, broken)
    )
    heading, *lines = explain_view(view).splitlines()
    assert heading == "Session s, 1 request, 2 native calls"
    assert lines[-5:] == [
        "count (c-1): done",
        "  times      0.500 s for inputs, 0.000 s queued, 1.000 s running",
        "count (c-1): failed",
        "  times      0.500 s for inputs, 0.000 s queued, 1.000 s running",
        "  error      native_call_failed: It raised.",
    ]


def test_lines_fit_a_terminal_and_go_on_below_what_they_are_about():
    others = (seen("smollm2-135m-instruct-0", 20.5, cached=900, harm=3.25),)
    placement = PlacementView(
        by="group", prompt_tokens=600, chosen=seen("smollm2-135m-instruct-1", harm=0.1), others=others
    )
    fields = {"function": "Summarise" * 9, "engine": "smollm2-135m-instruct-1", "placement": placement}
    shown = told(objective=Objective.GROUP, because=because(stages=3, group=16), **fields)
    assert max(map(len, shown)) < 80, shown
    assert shown[2:6] == [
        "  objective  group: one of 16 parallel requests, 3 stages before it; 'code' is",
        "               waited for (tpot)",
        "  prefix     about 0 of 600 prompt tokens expected in the cache",
        "  engine     smollm2-135m-instruct-1: with its task group, so that the last",
    ]
    assert all(one.startswith(" " * 13) for one in shown[6:-1])


def test_a_session_without_requests_says_so():
    empty = SessionView(id=SessionId("s"), lease_seconds=1, variables=(), requests=(), calls=())
    assert explain_view(empty) == "Session s has no requests.\n"


def test_it_is_data_too():
    view = SessionView(id=SessionId("s"), lease_seconds=1, variables=(CODE,), requests=(request(),), calls=())
    data = json.loads(Explanation(view).json())
    assert (data["id"], data["requests"][0]["objective"]) == ("s", "latency")
    assert data["calls"] == []
    assert "variables" not in data, "values are not told"
