"""The native engine's core: commands in, one step at a time, events out. Synchronous, and free of I/O.

    core.handle(command)      changes what is to be done
    core.step()               plan -> batch -> backend -> sample -> events

Everything about processes and pipes is outside.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from parrotserve.engines.base import (
    Cancel,
    Command,
    EndStatus,
    Event,
    Extend,
    Fill,
    Generate,
    Heartbeat,
    Open,
    Pause,
    Release,
    Resume,
    Retain,
    SequenceEnded,
    Update,
)
from parrotserve.engines.native.backend import Backend, FloatArray
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.output import EngineTokenizer
from parrotserve.engines.native.planner import Planned, Planner
from parrotserve.engines.native.progress import Progress
from parrotserve.engines.native.sampler import Draw, sample
from parrotserve.engines.native.sequence import Content, SequenceState
from parrotserve.engines.native.settings import CoreSettings
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.ids import RequestId
from parrotserve.sampling import TokenLogprob

_REMEMBERED = 4096
"""How many ended sequences' epochs are remembered, so that late duplicates of their commands change nothing."""

Sampled = tuple[SequenceState, int, TokenLogprob | None]


class NativeCore:
    """One model's sequences over one cache and backend."""

    def __init__(
        self,
        backend: Backend,
        cache: PageCache,
        tokenizer: EngineTokenizer,
        settings: CoreSettings,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._planner = Planner(
            cache,
            prefill_chunk=settings.prefill_chunk,
            max_running=settings.max_running,
            share=settings.share,
        )
        self._events: list[Event] = []
        self._progress = Progress(tokenizer, settings, self._planner, self._tell)
        self._open: dict[RequestId, SequenceState] = {}
        self._ended: OrderedDict[RequestId, int] = OrderedDict()
        self._arrivals = 0
        self._catching_up: set[RequestId] = set()
        """Sequences of which an output is streamed only now: what it has so far is told in the next step."""
        self._stalled = False
        self._steps = 0

    @property
    def idle(self) -> bool:
        """Whether `step` would do nothing until the next command."""
        if self._events or self._catching_up:
            return False
        return self._stalled or not any(state.runnable for state in self._open.values())

    def heartbeat(self) -> Heartbeat:
        """What the engine holds now."""
        stats = self._cache.stats()
        running = sum(state.runnable and bool(state.pages) for state in self._open.values())
        return Heartbeat(
            running=running,
            waiting=len(self._open) - running,
            used_pages=stats.used,
            cached_pages=stats.cached,
            retained_pages=stats.retained,
            free_pages=stats.free,
            steps=self._steps,
        )

    # --- Commands -------------------------------------------------------------------------------------------

    def handle(self, command: Command) -> None:
        """Takes in one command; the next `step` tells what came of it."""
        self._stalled = False
        match command:
            case Retain():
                self._cache.retain(command.key, command.salt, command.tokens)
            case Release():
                self._cache.release(command.key)
            case Open():
                self._handle_open(command)
            case Extend() | Update() | Pause() | Resume() | Cancel():
                state = self._open.get(command.sequence)
                if state is not None and state.epoch == command.epoch:
                    self._handle_change(state, command)

    def _handle_open(self, command: Open) -> None:
        current = self._open.get(command.sequence)
        latest = current.epoch if current is not None else self._ended.get(command.sequence)
        if latest is not None and command.epoch <= latest:
            return
        if current is not None:
            self._end(current, EndStatus.CANCELLED)
        state = _new_state(command, self._arrivals)
        self._arrivals += 1
        self._open[command.sequence] = state
        self._attempt(state, lambda: self._admit(state, command))

    def _handle_change(self, state: SequenceState, command: Extend | Update | Pause | Resume | Cancel) -> None:
        match command:
            case Cancel():
                self._end(state, EndStatus.CANCELLED)
            case Pause():
                state.paused = True
            case Resume():
                state.paused = False
            case Update():
                state.objective = command.objective or state.objective
                state.streamed.update(command.stream)
                self._catching_up.add(state.sequence)
            case Extend():
                self._attempt(state, lambda: self._extend(state, command))

    def _admit(self, state: SequenceState, command: Open) -> bool:
        if len(self._open) > self._settings.credits:
            raise EngineFailed(
                f"The engine has {self._settings.credits} sequences open, as many as it takes; open more when some end."
            )
        if any(isinstance(segment, Fill) and segment.text is not None for segment in command.segments):
            raise EngineFailed("This engine takes token ids, not text.")
        self._progress.check_length(state)
        return self._progress.go_on(state)

    def _extend(self, state: SequenceState, command: Extend) -> bool:
        segment = state.segments[command.segment] if 0 <= command.segment < len(state.segments) else None
        if not isinstance(segment, Content) or command.text is not None:
            raise EngineFailed(f"Segment {command.segment} cannot be extended with what came: it takes token ids.")
        try:
            segment.extend(command.offset, command.tokens or (), last=command.last)
        except ValueError as error:
            raise EngineFailed(f"Segment {command.segment} cannot be extended: {error}.") from error
        self._progress.check_length(state)
        return self._progress.go_on(state)

    def _attempt(self, state: SequenceState, act: Callable[[], bool]) -> None:
        """Does something that may complete the sequence. What goes wrong ends this one and no other."""
        try:
            if act():
                self._end(state, EndStatus.DONE)
        except ParrotError as error:
            self._end(state, EndStatus.FAILED, (error.code, error.message))

    def _end(self, state: SequenceState, status: EndStatus, error: tuple[str, str] | None = None) -> None:
        self._planner.rewind(state, 0)
        del self._open[state.sequence]
        self._ended[state.sequence] = state.epoch
        self._ended.move_to_end(state.sequence)
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        self._tell(
            SequenceEnded(sequence=state.sequence, epoch=state.epoch, status=status, usage=state.usage(), error=error)
        )

    def _tell(self, event: Event) -> None:
        self._events.append(event)

    # --- The step -------------------------------------------------------------------------------------------

    def step(self) -> list[Event]:
        """Runs one batch, if anything can run, and returns what there is to tell since the last step."""
        plan = self._planner.plan(self._open.values())
        self._stalled = not plan
        if plan:
            self._run(plan)
        for sequence in self._catching_up & self._open.keys():
            self._progress.tell_tokens(self._open[sequence])
        self._catching_up.clear()
        events, self._events = self._events, []
        return events

    def _run(self, plan: Sequence[Planned]) -> None:
        started = self._clock()
        batch, order = build_batch(
            [_rows(planned) for planned in plan], self._cache.page_tokens, group=self._settings.group
        )
        logits = self._backend.step(batch)
        for planned in plan:
            self._note_computed(planned)
        sampled = self._sample([plan[index].state for index in order], logits)
        self._steps += 1
        self._share_time(plan, self._clock() - started)
        for state, token, logprob in sampled:
            self._attempt(state, lambda: self._progress.push(state, token, logprob))  # noqa: B023 - called at once
        for planned in plan:
            if planned.state.runs_out:
                self._end(planned.state, EndStatus.DONE)

    def _note_computed(self, planned: Planned) -> None:
        """Full pages are published, with generated tokens too: whoever comes later extends this sequence."""
        state, page_tokens = planned.state, self._cache.page_tokens
        before = state.computed // page_tokens
        state.computed += planned.count
        state.seen_through = max(state.seen_through, state.computed)
        full = state.computed // page_tokens
        if full > before:
            state.pages[:full] = self._cache.publish(state.salt, state.known, state.pages[:full])

    def _sample(self, states: Sequence[SequenceState], logits: FloatArray) -> list[Sampled]:
        """The next token of each of these sequences; logits are [sequences, vocabulary]."""
        asking: list[tuple[int, Draw]] = []
        for row, state in enumerate(states):
            assert state.output is not None
            try:
                asking.append((row, state.output.draw(logits.shape[1])))
            except ParrotError as error:
                self._end(state, EndStatus.FAILED, (error.code, error.message))
        rows = [row for row, _ in asking]
        chosen = sample(logits if len(rows) == len(states) else logits[rows], [draw for _, draw in asking])
        return [(states[row], token, logprob) for row, (token, logprob) in zip(rows, chosen, strict=True)]

    @staticmethod
    def _share_time(plan: Sequence[Planned], seconds: float) -> None:
        rows = sum(planned.count for planned in plan)
        for planned in plan:
            planned.state.engine_seconds += seconds * planned.count / rows


def _rows(planned: Planned) -> SequenceRows:
    state = planned.state
    stop = state.computed + planned.count
    return SequenceRows(
        tokens=state.known[state.computed : stop],
        start=state.computed,
        pages=state.pages,
        want_logits=state.output is not None and stop == len(state.known),
    )


def _new_state(command: Open, arrival: int) -> SequenceState:
    outputs = [(index, part) for index, part in enumerate(command.segments) if isinstance(part, Generate)]
    return SequenceState(
        sequence=command.sequence,
        epoch=command.epoch,
        salt=command.salt,
        objective=command.objective,
        arrival=arrival,
        segments=[
            part if isinstance(part, Generate) else Content(list(part.tokens or ()), complete=not part.late)
            for part in command.segments
        ],
        streamed={index for index, part in outputs if part.stream},
    )
