"""A planner over a cache of a few small pages, and sequences for it, carried out without a model."""

from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.engines.base import Generate
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.cache import KvCache, PageCache
from parrotserve.engines.native.output import OutputState
from parrotserve.engines.native.pace import Pace, StepModel
from parrotserve.engines.native.plan import Planned
from parrotserve.engines.native.planner import Planner
from parrotserve.engines.native.sequence import Content, SequenceState
from parrotserve.engines.native.timing import StepShape
from parrotserve.ids import RequestId
from parrotserve.sampling import Sampling
from parrotserve.step_cost import Rates

PAGE = 4


def sequence(
    tokens: str,
    *,
    arrival: int = 0,
    objective: Objective = Objective.LATENCY,
    precedence: Precedence = NO_PRECEDENCE,
    waits: bool = False,
) -> SequenceState:
    """One whose prompt is known; with `waits` a late segment comes before its output."""
    generate = Generate(sampling=Sampling())
    late = [Content([], complete=False)] if waits else []
    state = SequenceState(
        sequence=RequestId(tokens),
        epoch=1,
        salt="",
        objective=objective,
        precedence=precedence,
        arrival=arrival,
        segments=[Content(list(tokens.encode()), complete=True), *late, generate],
    )
    go_on(state)
    return state


def go_on(state: SequenceState) -> None:
    """Takes in what is known, up to the output."""
    state.dormant = False
    for output in state.take_content():
        state.output = OutputState(
            output, segment=1, prompt=state.known, room=100, tokenizer=FakeTokenizer(), grammar=None
        )


def ahead(tokens: str, *, arrival: int = 0) -> SequenceState:
    """One that knows so much and waits for more."""
    state = sequence(tokens, arrival=arrival, waits=True)
    state.sequence = RequestId(f"ahead{arrival}")
    return state


def fill(state: SequenceState, tokens: str, *, complete: bool = True) -> None:
    """What the sequence waits for comes."""
    content = state.segments[state.cursor]
    assert isinstance(content, Content)
    content.extend(len(content.tokens), list(tokens.encode()), last=complete)
    go_on(state)


class FixedModel(StepModel):
    """Thinks that every row takes `row` seconds, whatever it learns."""

    def __init__(self, row: float) -> None:
        super().__init__()
        self._fixed = Rates(step=0.0, prefill=row, decode=row, read=0.0, attend=0.0)

    def rates(self) -> Rates:
        return self._fixed


class FixedPace(Pace):
    """Leaves `left` seconds of a step beside what decodes under the bound."""

    def __init__(self, *, row: float, left: float) -> None:
        super().__init__(adapt=False)
        self.model = FixedModel(row)
        self._left = left

    def left(self, step: StepShape) -> float:
        return self._left


class Bench:
    """A planner, and the cache that it plans for."""

    def __init__(
        self,
        cache: PageCache | None = None,
        *,
        chunk: int = 64,
        max_running: int = 8,
        share: bool = True,
        pace: Pace | None = None,
    ):
        self.cache = cache or KvCache(64, PAGE)
        self.planner = Planner(self.cache, prefill_chunk=chunk, max_running=max_running, share=share, pace=pace)

    def step(self, *states: SequenceState) -> dict[str, int]:
        """Plans one step and carries it out, but for the model; how many tokens of each sequence ran."""
        self.planner.unsettle()  # nobody has told the planner which sequences there are now
        plan = self.planner.plan(states)
        for planned in plan:
            self.compute(planned)
        self.cache.check_integrity()
        return {planned.state.sequence: planned.count for planned in plan}

    def compute(self, planned: Planned) -> None:
        state = planned.state
        assert len(state.pages) * PAGE >= state.computed + planned.count
        state.computed += planned.count
        full = state.computed // PAGE
        state.pages[:full] = self.cache.publish(state.salt, state.known, state.pages[:full])
        if state.output is not None and state.computed == len(state.known):
            state.known.append(0)
