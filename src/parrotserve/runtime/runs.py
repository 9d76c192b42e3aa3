"""The delivered tokens of running requests, so that a rerun goes on at the exact token where a client's stream broke.

If an engine dies while it runs a request, the request runs again as a new *epoch*. The tokens already delivered become
the beginning of the rerun (`Generate.delivered`), so a stream never contradicts itself. Events of earlier epochs, which
may still arrive, are dropped here.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from parrotserve.engines.base import EndStatus, SegmentFinished, SequenceEnded, StepsTimed, TokensGenerated
from parrotserve.errors import EngineFailed, from_wire
from parrotserve.graph.events import OutputProduced, RequestEnded, StepsRun
from parrotserve.ids import EngineId, RequestId, VariableId, shown
from parrotserve.protocol import Value
from parrotserve.runtime.board import Board
from parrotserve.runtime.render import engine_segment
from parrotserve.sampling import TokenLogprob
from parrotserve.store.recorder import Recorder

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Progress:
    """One output, and what has been delivered of it."""

    variable: VariableId
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    repeated: int = 0
    """Number of characters that readers already have from a run whose tokens are no longer kept."""
    finished: bool = False
    """Whether the whole output was reported: in this run, or in an earlier one if it is READY."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What is known of an output from before the service was restarted."""

    variable: VariableId
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(slots=True)
class _Run:
    epoch: int
    outputs: dict[int, _Progress]
    """By segment."""


class Runs:
    """The current runs of all requests that may still run, by request. Owned by one event loop."""

    def __init__(self, board: Board, recorder: Recorder) -> None:
        self._board = board
        self._recorder = recorder
        self._runs: dict[RequestId, _Run] = {}
        self._logprobs: dict[VariableId, tuple[TokenLogprob, ...]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def restore(self, request: RequestId, outputs: Iterable[Delivered]) -> None:
        """Go on with a request from before the service was restarted: its outputs, and what was delivered of them."""
        progress = [_Progress(one.variable, list(one.tokens), list(one.logprobs)) for one in outputs]
        self._runs[request] = _Run(0, {engine_segment(number): one for number, one in enumerate(progress)})

    def keep_logprobs(self, variable: VariableId, logprobs: tuple[TokenLogprob, ...]) -> None:
        """Keep the log-probabilities of a finished output's tokens until they are taken."""
        if logprobs:
            self._logprobs[variable] = logprobs

    def begin(self, request: RequestId, epoch: int, outputs: Sequence[VariableId]) -> dict[VariableId, tuple[int, ...]]:
        """Begin a run of a request with these outputs. Returns the tokens of each that were delivered already."""
        run = self._runs.get(request)
        if run is None:
            run = self._runs[request] = _Run(epoch, {})
            for number, variable in enumerate(outputs):
                seen = len(self._board.text(variable))
                run.outputs[engine_segment(number)] = _Progress(variable, repeated=seen)
        run.epoch = epoch
        for progress in run.outputs.values():
            # An output may have finished when the machine no longer wanted it: after a retry it must be reported.
            progress.finished = isinstance(self._board.outcome(progress.variable), Value)
        return {progress.variable: tuple(progress.tokens) for progress in run.outputs.values()}

    def segments_of(self, request: RequestId, variables: frozenset[VariableId]) -> tuple[int, ...]:
        """The indices of these outputs among their request's engine segments."""
        run = self._runs.get(request)
        if run is None:
            return ()
        return tuple(index for index, progress in run.outputs.items() if progress.variable in variables)

    def tokens(self, event: TokensGenerated) -> VariableId | None:
        """Record new tokens of a streamed output, and put their text on the board. Returns the variable whose text
        grew, if any. Raises `EngineFailed` for a gap between tokens."""
        progress = self._progress(event.sequence, event.epoch, event.segment)
        if progress is None or progress.finished:
            return None
        if event.offset != len(progress.tokens):
            raise EngineFailed(
                f"The engine sent token {event.offset} of {shown(progress.variable)} after {len(progress.tokens)} "
                "tokens.",
                request=shown(event.sequence),
            )
        progress.tokens.extend(event.tokens)
        progress.logprobs.extend(event.logprobs)
        # Readers have the log-probabilities of the text that they already have.
        logprobs = event.logprobs if not progress.repeated else ()
        text = event.text[progress.repeated :]
        progress.repeated -= len(event.text) - len(text)
        self._recorder.wrote(progress.variable, tokens=event.tokens, text=text, logprobs=event.logprobs)
        if text or logprobs:
            self._board.append(progress.variable, text, logprobs)
        return progress.variable if text else None

    def finished(self, event: SegmentFinished) -> OutputProduced | None:
        """Record that an output is complete. Returns the event for the machine; None if that was known already."""
        progress = self._progress(event.sequence, event.epoch, event.segment)
        if progress is None or progress.finished:
            return None
        before = len(event.tokens) - len(event.logprobs)
        logprobs = (*progress.logprobs[:before], *event.logprobs)
        self.keep_logprobs(progress.variable, logprobs)
        progress.logprobs = list(logprobs)
        progress.tokens = list(event.tokens)
        progress.finished = True
        return OutputProduced(
            request=event.sequence,
            epoch=event.epoch,
            variable=progress.variable,
            value=self._agreed(progress.variable, event.text),
            reason=event.reason,
            logprobs=sum(1 + len(one.top) for one in logprobs),
        )

    def tokens_of(self, request: RequestId, variable: VariableId) -> tuple[int, ...]:
        """The tokens of an output as far as they are known here."""
        run = self._runs.get(request)
        found = (one.tokens for one in run.outputs.values() if one.variable == variable) if run is not None else ()
        return tuple(next(iter(found), ()))

    def take_logprobs(self, variable: VariableId) -> tuple[TokenLogprob, ...]:
        """Remove and return the log-probabilities of a finished output's tokens; empty if none were asked for."""
        return self._logprobs.pop(variable, ())

    def forget(self, request: RequestId) -> None:
        """Drop a request that will not run again."""
        self._runs.pop(request, None)

    def _progress(self, request: RequestId, epoch: int, segment: int) -> _Progress | None:
        run = self._runs.get(request)
        return run.outputs.get(segment) if run is not None and run.epoch == epoch else None

    def _agreed(self, variable: VariableId, text: str) -> str:
        """The final text, made to begin with the text that readers have seen."""
        seen = self._board.text(variable)
        if text.startswith(seen):
            return text
        log.error("the final text of %s does not begin with the %d characters streamed", variable, len(seen))
        return seen + text[len(seen) :]


def request_ended(event: SequenceEnded) -> RequestEnded:
    """The end of a run, as an event for the machine."""
    return RequestEnded(
        request=event.sequence,
        epoch=event.epoch,
        usage=event.usage,
        error=from_wire(*event.error) if event.error else None,
        cancelled=event.status is EndStatus.CANCELLED,
    )


def steps_run(engine: EngineId, event: StepsTimed) -> StepsRun:
    """An engine's report of its steps, as an event for the machine."""
    return StepsRun(
        engine=engine,
        steps=event.steps,
        prefill_tokens=event.prefill_tokens,
        decode_rows=event.decode_rows,
        kv_tokens=event.kv_tokens,
        attended=event.attended,
        seconds=event.seconds,
    )
