"""The open sequences, and the effects of commands on them: idempotent by (sequence, epoch), each ended exactly once."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from parrotserve.engines.base import (
    Cancel,
    EndStatus,
    Event,
    Extend,
    Fill,
    Generate,
    Open,
    Pause,
    Resume,
    SequenceEnded,
    Update,
)
from parrotserve.engines.native.progress import Progress
from parrotserve.engines.native.radix import Salt
from parrotserve.engines.native.sequence import Content, SequenceState
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.ids import RequestId
from parrotserve.sampling import TokenLogprob

_REMEMBERED = 4096
"""Number of ended sequences whose epochs are remembered, so that late duplicates of their commands change nothing."""

SequenceCommand = Open | Extend | Update | Pause | Resume | Cancel


class OpenSequences:
    """All open sequences. Takes commands and generated tokens, and gives events."""

    def __init__(
        self,
        progress: Progress,
        *,
        credits: int,  # noqa: A002 - the contract's word
        forget: Callable[[SequenceState], None],
        vocabulary: int | None = None,
    ) -> None:
        """`credits`: the most that may be open at once. `forget` frees all that a sequence holds, when it ends. Token
        ids must be below `vocabulary`; None: they are not checked."""
        self._progress = progress
        self._credits = credits
        self._vocabulary = vocabulary
        self._forget = forget
        self._open: dict[RequestId, SequenceState] = {}
        self._ended: OrderedDict[RequestId, int] = OrderedDict()
        self._arrivals = 0
        self._catching_up: set[RequestId] = set()
        """Sequences with an output that has just become streamed or followed: its tokens so far come with the next
        events."""

    def prepare(self) -> None:
        """Makes what the first grammar needs."""
        self._progress.grammars.prepare()

    def __iter__(self) -> Iterator[SequenceState]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    @property
    def news(self) -> bool:
        """Whether there are events to send, or sequences that can go on, without another command."""
        return bool(self._progress.events or self._catching_up or self._progress.grammars.any_ready)

    def call_when_ready(self, wake: Callable[[], None]) -> None:
        """Sets `wake`, which is called, on any thread, when `resume_ready` has something to do."""
        self._progress.grammars.wake = wake

    def resume_ready(self) -> bool:
        """Advances the sequences whose grammar has become ready. Returns whether there were any."""
        ready = [state for state in self._progress.grammars.take_ready() if self._open.get(state.sequence) is state]
        for state in ready:
            self._attempt(state, partial(self._progress.advance, state))
        return bool(ready)

    def take_events(self) -> list[Event]:
        """Removes and returns the events since the last call."""
        for sequence in self._catching_up & self._open.keys():
            self._progress.tell_tokens(self._open[sequence])
        self._catching_up.clear()
        return self._progress.take_events()

    def push(
        self, state: SequenceState, token: int, logprob: TokenLogprob | None = None, *, more: bool = False
    ) -> bool:
        """Adds a token to the current output. With `more` to come in the same step, it is reported together with the
        last of them. Returns False if the output has ended."""
        output = state.output
        try:
            if self._progress.push(state, token, logprob, more=more):
                self.end(state, EndStatus.DONE)
                return False
        except ParrotError as error:
            self.fail(state, error)
            return False
        return state.output is output

    def fail(self, state: SequenceState, error: ParrotError) -> None:
        """Ends a sequence that failed."""
        self.end(state, EndStatus.FAILED, error)

    def end(self, state: SequenceState, status: EndStatus, error: ParrotError | None = None) -> None:
        """Ends a sequence, with its one terminal event."""
        self._forget(state)
        if state.grammar is not None:
            state.grammar.cancel()
        del self._open[state.sequence]
        self._ended[state.sequence] = state.epoch
        self._ended.move_to_end(state.sequence)
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        ended = SequenceEnded(
            sequence=state.sequence,
            epoch=state.epoch,
            status=status,
            usage=state.usage(),
            error=None if error is None else (error.code, error.message),
        )
        self._progress.events.append(ended)

    # --- Commands -------------------------------------------------------------------------------------------

    def handle(self, command: SequenceCommand) -> None:
        """Handles one command; `take_events` gives the events that result."""
        if isinstance(command, Open):
            self._open_sequence(command)
            return
        state = self.find(command.sequence, command.epoch)
        if state is not None:
            self._change(state, command)

    def find(self, sequence: RequestId, epoch: int) -> SequenceState | None:
        """The sequence, if it is open in this epoch."""
        state = self._open.get(sequence)
        return state if state is not None and state.epoch == epoch else None

    def _open_sequence(self, command: Open) -> None:
        current = self._open.get(command.sequence)
        latest = current.epoch if current is not None else self._ended.get(command.sequence)
        if latest is not None and command.epoch <= latest:
            return
        if current is not None:
            self.end(current, EndStatus.CANCELLED)
        state = _new_state(command, self._arrivals)
        self._arrivals += 1
        self._open[command.sequence] = state
        self._attempt(state, lambda: self._admit(state, command))

    def _change(self, state: SequenceState, command: Extend | Update | Pause | Resume | Cancel) -> None:
        match command:
            case Cancel():
                self.end(state, EndStatus.CANCELLED)
            case Pause():
                state.paused = True
            case Resume():
                state.paused = False
            case Update():
                state.objective = command.objective or state.objective
                state.precedence = command.precedence or state.precedence
                state.streamed_segments.update(command.stream)
                state.followed_segments.update(command.follow)
                self._catching_up.add(state.sequence)
            case Extend():
                self._attempt(state, lambda: self._extend(state, command))

    def _admit(self, state: SequenceState, command: Open) -> bool:
        if len(self._open) > self._credits:
            raise EngineFailed(
                f"The engine has {self._credits} sequences open, as many as it takes; open more when some end."
            )
        if any(isinstance(segment, Fill) and segment.text is not None for segment in command.segments):
            raise EngineFailed("This engine takes token ids, not text.")
        for segment in command.segments:
            if isinstance(segment, Fill):
                self._check_tokens(segment.tokens)
        self._progress.check_length(state)
        return self._progress.advance(state)

    def _extend(self, state: SequenceState, command: Extend) -> bool:
        segment = state.segments[command.segment] if 0 <= command.segment < len(state.segments) else None
        if not isinstance(segment, Content) or command.text is not None:
            raise EngineFailed(f"Segment {command.segment} cannot be extended with what came: it takes token ids.")
        self._check_tokens(command.tokens)
        try:
            segment.extend(command.offset, command.tokens or (), last=command.last)
        except ValueError as error:
            raise EngineFailed(f"Segment {command.segment} cannot be extended: {error}.") from error
        self._progress.check_length(state)
        return self._progress.advance(state)

    def _check_tokens(self, tokens: Sequence[int] | None) -> None:
        """Raises `EngineFailed` for ids outside the vocabulary: in a step, they would end the engine, and with it
        everybody else's work."""
        if tokens and self._vocabulary is not None and not 0 <= min(tokens) <= max(tokens) < self._vocabulary:
            wrong = next(token for token in tokens if not 0 <= token < self._vocabulary)
            raise EngineFailed(f"Token {wrong} is none of the model's, which has {self._vocabulary} of them.")

    def _attempt(self, state: SequenceState, act: Callable[[], bool]) -> None:
        """Calls `act`, which may complete the sequence. An error ends this sequence and no other."""
        try:
            if act():
                self.end(state, EndStatus.DONE)
        except ParrotError as error:
            self.fail(state, error)


def _new_state(command: Open, arrival: int) -> SequenceState:
    outputs = [(index, part) for index, part in enumerate(command.segments) if isinstance(part, Generate)]
    return SequenceState(
        sequence=command.sequence,
        epoch=command.epoch,
        salt=Salt(command.salt, command.public),
        objective=command.objective,
        precedence=command.precedence,
        arrival=arrival,
        segments=[
            part if isinstance(part, Generate) else Content(list(part.tokens or ()), complete=not part.late)
            for part in command.segments
        ],
        streamed_segments={index for index, part in outputs if part.stream},
    )
