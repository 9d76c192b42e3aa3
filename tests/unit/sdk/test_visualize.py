"""Drawing a session's graph."""

from fake_service import FakeService

import Parrot as P
from parrotserve.criteria import Objective
from parrotserve.ids import CallId, RequestId, SessionId, VariableId
from parrotserve.protocol import CallView, RequestView, SessionView, Timings, VariableView
from parrotserve.sampling import Usage
from parrotserve.sdk.visualize import mermaid


def variable(name: str, state: str = "ready", shown: str | None = None) -> VariableView:
    return VariableView(id=VariableId(name), name=shown, state=state, producer=None, value=None, error=None)


VIEW = SessionView(
    id=SessionId("s-1"),
    lease_seconds=30,
    variables=(variable("v-1", shown='a "task"'), variable("v-2", shown="code"), variable("v-3", "producing", "out")),
    requests=(
        RequestView(
            id=RequestId("r-1"),
            function="Write",
            model="tiny",
            state="done",
            inputs=(VariableId("v-1"),),
            outputs=(VariableId("v-2"),),
            objective=Objective.LATENCY,
            engine=None,
            epoch=0,
            timings=Timings(submitted=0),
            usage=Usage(),
            error=None,
        ),
    ),
    calls=(
        CallView(
            id=CallId("c-1"),
            function="Upper",
            state="running",
            inputs=(VariableId("v-2"),),
            output=VariableId("v-3"),
            timings=Timings(submitted=0),
            error=None,
        ),
    ),
)


def test_boxes_and_arrows():
    assert mermaid(VIEW).splitlines() == [
        "flowchart TD",
        '    v0("a &quot;task&quot;<br/><small>ready</small>")',
        '    v1("code<br/><small>ready</small>")',
        '    v2("out<br/><small>producing</small>")',
        '    r0["Write<br/><small>done</small>"]',
        "    v0 --> r0",
        "    r0 --> v1",
        '    c0[["Upper<br/><small>running</small>"]]',
        "    v1 --> c0",
        "    c0 --> v2",
    ]


def test_the_current_session_is_drawn_with_what_was_just_declared(service: FakeService):
    @P.SemanticFunction
    def Write(task: str):
        """{{input:task}}: {{output:text}}"""

    with P.Session() as session:
        Write("x")
        drawn = P.visualize()
        assert drawn == P.visualize(session)
    assert 'v1("text<br/><small>ready</small>")' in drawn
