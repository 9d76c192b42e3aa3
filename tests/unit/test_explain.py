"""What is told of a session's requests."""

import json

from parrotserve.criteria import Criteria, Objective
from parrotserve.explain import explain_view
from parrotserve.ids import EngineId, RequestId, SessionId, VariableId
from parrotserve.protocol import (
    BecauseView,
    ConsideredView,
    PlacementView,
    RequestView,
    SessionView,
    Timings,
    VariableView,
)
from parrotserve.sampling import Usage
from parrotserve.sdk.explain import Explanation

CODE = VariableView(id=VariableId("v-1"), name="code", state="ready", producer="r-1", value="x", error=None)


def seen(engine: str, seconds: float | None = 1.25, cached: int = 0, harm: float = 0.0) -> ConsideredView:
    return ConsideredView(engine=EngineId(engine), seconds=seconds, cached_tokens=cached, harm=harm)


def request(**fields: object) -> RequestView:
    whole: dict[str, object] = {
        "id": RequestId("r-1"), "function": "Write", "model": "m", "state": "running", "inputs": (), "outputs": (),
        "objective": Objective.LATENCY, "engine": EngineId("m-0"), "epoch": 0, "timings": Timings(submitted=0.0),
        "usage": Usage(), "error": None, "because": None, "placement": None,
    }  # fmt: skip
    return RequestView.model_validate(whole | fields)


def told(**fields: object) -> list[str]:
    view = SessionView(id=SessionId("s"), lease_seconds=1, variables=(CODE,), requests=(request(**fields),), calls=())
    return explain_view(view).splitlines()


def line(label: str, **fields: object) -> str:
    return next(one.split(label)[1].strip() for one in told(**fields) if one.strip().startswith(label))


def because(stages: int = 0, group: int | None = None) -> BecauseView:
    return BecauseView(result=VariableId("v-1"), criteria=Criteria.TPOT, stages=stages, group=group)


def test_the_head_says_which_request_and_where():
    assert told()[0] == "Write (r-1): running on m-0"
    assert told(engine=None, state="waiting")[0] == "Write (r-1): waiting"


def test_who_writes_what_a_native_call_makes_the_result_of_does_not_write_the_result():
    told = line("objective", because=because(), outputs=(VariableId("v-2"),))
    assert told == "latency: all that comes after waits for it alone; 'code' is waited for (tpot)"
    grouped = line("objective", objective=Objective.GROUP, because=because(group=3))
    assert grouped == "group: one of 3 parallel requests, the stage before it; 'code' is waited for (tpot)"


def test_an_objective_has_its_reason():
    written = line("objective", because=because(), outputs=(VariableId("v-1"),))
    assert written == "latency: it writes what is waited for; 'code' is waited for (tpot)"
    assert "all that comes after waits for it alone" in line("objective", because=because(stages=2))
    grouped = line("objective", objective=Objective.GROUP, because=because(stages=1, group=8))
    assert grouped == "group: one of 8 parallel requests, the stage before it; 'code' is waited for (tpot)"
    assert line("objective", objective=Objective.THROUGHPUT) == "throughput: nobody waits for what it leads to"


def test_what_was_saved_is_told_as_found_and_then_as_it_was():
    placement = PlacementView(by="resident", prompt_tokens=600, chosen=seen("m-0", cached=512), others=())
    assert line("prefix") == "not placed yet"
    assert line("prefix", placement=placement) == "about 512 of 600 prompt tokens found"
    usage = Usage(prompt_tokens=1610, cached_tokens=1500, output_tokens=9)
    assert line("prefix", placement=placement, usage=usage) == "1,500 of 1,610 prompt tokens were saved"


def test_the_engine_is_told_and_why_not_the_others():
    others = (seen("m-1", 2.5, cached=9, harm=0.25), seen("m-2", None))
    placement = PlacementView(by="resident", prompt_tokens=1, chosen=seen("m-0", harm=0.1), others=others)
    lines = told(placement=placement)
    assert "  engine     m-0: its beginning is resident there; predicted 1.250 s, others lose 0.100 s" in lines
    assert "             not m-1: predicted 2.500 s, others lose 0.250 s, 9 tokens found" in lines
    assert "             not m-2: no room" in lines


def test_times_are_told_as_far_as_they_are_known():
    def times(**known: float) -> str:
        return line("times", timings=Timings(submitted=1.0, **known))

    assert times() == "waits for inputs"
    assert times(ended=2.0) == "never had its inputs"
    assert times(ready=1.5) == "0.500 s for inputs, queued since"
    assert times(ready=1.5, ended=2.0) == "0.500 s for inputs, never ran"
    assert times(ready=1.5, started=1.75) == "0.500 s for inputs, 0.250 s queued, running since"
    assert times(ready=1.5, started=1.75, ended=2.0) == "0.500 s for inputs, 0.250 s queued, 0.250 s running"


def test_a_session_without_requests_says_so():
    empty = SessionView(id=SessionId("s"), lease_seconds=1, variables=(), requests=(), calls=())
    assert explain_view(empty) == "Session s has no requests.\n"


def test_it_is_data_too():
    view = SessionView(id=SessionId("s"), lease_seconds=1, variables=(CODE,), requests=(request(),), calls=())
    data = json.loads(Explanation(view).json())
    assert (data["id"], data["requests"][0]["objective"]) == ("s", "latency")
    assert "variables" not in data, "values are not told"
