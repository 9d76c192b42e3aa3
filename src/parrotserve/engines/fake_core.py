"""The core of a `FakeEngine`: the native engine's bookkeeping of sequences, with a script in place of a model."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from parrotserve.engines.base import Command, EndStatus, Event, Extend, Fill, Heartbeat, Open, Release, Retain
from parrotserve.engines.fake_tokenizer import END, FakeTokenizer
from parrotserve.engines.native.open_sequences import OpenSequences
from parrotserve.engines.native.output import OutputState
from parrotserve.engines.native.progress import Progress
from parrotserve.engines.native.sequence import Content, SequenceState
from parrotserve.engines.native.settings import CoreSettings
from parrotserve.engines.native.timing import StepShape, StepTimes
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.sampling import TokenLogprob

_VOCABULARY = 258
_CLOSING = (END, *b'}]"0:,tfn')
"""Tokens that are tried first if a schema forbids the script's next byte: they soon end every value."""


class FakeCore:
    """Steps sequences along a script. A page holds one token, so that tests can predict its heartbeats."""

    def __init__(
        self,
        script: Callable[[str], str],
        tokenizer: FakeTokenizer,
        settings: CoreSettings,
        *,
        takes_text: bool,
        step_seconds: float,
        fail_prompts: tuple[str, ...],
    ) -> None:
        self.now = 0.0
        self._script = script
        self._tokenizer = tokenizer
        self._settings = settings
        self._takes_text = takes_text
        self._step_seconds = step_seconds
        self._fail_prompts = fail_prompts
        self._steps = 0
        self._times = StepTimes()
        self._scripts: WeakKeyDictionary[OutputState, bytes] = WeakKeyDictionary()
        self._retained: dict[str, tuple[int, ...]] = {}
        self._sequences = OpenSequences(
            Progress(tokenizer, settings, rewind=_rewind),
            credits=settings.credits,
            forget=lambda state: _rewind(state, 0),
        )

    @property
    def idle(self) -> bool:
        """Whether `step` would do nothing until the next command."""
        return not self._sequences.news and not any(state.runnable for state in self._sequences)

    def heartbeat(self) -> Heartbeat:
        """What it holds now, in pages of one token."""
        running = sum(state.runnable and state.computed > 0 for state in self._sequences)
        retained = sum(len(tokens) for tokens in self._retained.values())
        return Heartbeat(
            running=running,
            waiting=len(self._sequences) - running,
            used_pages=sum(state.computed for state in self._sequences),
            cached_pages=retained,
            retained_pages=retained,
            free_pages=self._settings.context_length,
            steps=self._steps,
        )

    def handle(self, command: Command) -> None:
        """Handles a command; the next `step` returns the events that result."""
        match command:
            case Retain():
                self._retained[command.key] = command.tokens
            case Release():
                self._retained.pop(command.key, None)
            case Open():
                self._sequences.handle(self._spell_open(command) if self._takes_text else command)
            case Extend():
                self._sequences.handle(self._spell_extend(command) if self._takes_text else command)
            case _:
                self._sequences.handle(command)

    def step(self) -> list[Event]:
        """One token for each sequence that can go on, the most important ones first."""
        runnable = sorted((state for state in self._sequences if state.runnable), key=lambda state: state.rank)
        running = runnable[: self._settings.max_running]
        if running:
            self._steps += 1
            self.now += self._step_seconds
            self._note_time(running)
        for state in running:
            state.engine_seconds += self._step_seconds / len(running)
            state.computed = state.seen_through = len(state.known)
            if state.output is not None:
                self._generate(state, state.output)
            elif state.runs_out:
                self._sequences.end(state, EndStatus.DONE)
        events = self._sequences.take_events()
        self._times.add_to(events)
        return events

    def _note_time(self, running: Sequence[SequenceState]) -> None:
        decode_rows = sum(len(state.known) - state.computed == 1 for state in running)
        shape = StepShape(
            prefill_tokens=sum(len(state.known) - state.computed for state in running) - decode_rows,
            decode_rows=decode_rows,
            attended=sum(sum(range(state.computed + 1, len(state.known) + 1)) for state in running),
        )
        self._times.note(shape, kv_tokens=sum(len(state.known) for state in running), seconds=self._step_seconds)

    def _generate(self, state: SequenceState, output: OutputState) -> None:
        try:
            token = self._next_token(state, output)
        except ParrotError as error:
            self._sequences.end(state, EndStatus.FAILED, error)
            return
        wanted = output.sampling.logprobs
        top = ((token, 0.0), *((other, -100.0) for other in range(20) if other != token))
        self._sequences.push(state, token, None if wanted is None else TokenLogprob(token, 0.0, top[:wanted]))

    def _next_token(self, state: SequenceState, output: OutputState) -> int:
        script = self._script_of(state, output)
        place = len(output.tokens)
        must_go_on = output.sampling.ignore_eos or place < output.sampling.min_tokens
        if place < len(script):
            token = script[place]
        else:
            token = (script + b" ")[place % (len(script) + 1)] if must_go_on else END
        if output.grammar is None:
            return token
        allowed = output.grammar.allowed(_VOCABULARY)
        choices = (token, *_CLOSING, *np.flatnonzero(allowed).tolist())
        return next(choice for choice in choices if allowed[choice])

    def _script_of(self, state: SequenceState, output: OutputState) -> bytes:
        script = self._scripts.get(output)
        if script is None:
            prompt = self._tokenizer.decode(state.known[: output.start])
            if any(part in prompt for part in self._fail_prompts):
                raise EngineFailed("The engine was told to fail sequences with this prompt.")
            script = self._scripts[output] = self._script(prompt).encode("utf-8", errors="replace")
        return script

    # --- An engine that takes text tokenises it first, and goes on as one that takes tokens ------------------

    def _spell_open(self, command: Open) -> Open:
        segments = tuple(
            Fill(tokens=tuple(self._tokenizer.encode(part.text)))
            if isinstance(part, Fill) and part.text is not None
            else part
            for part in command.segments
        )
        return msgspec.structs.replace(command, segments=segments)

    def _spell_extend(self, command: Extend) -> Extend:
        state = self._sequences.find(command.sequence, command.epoch)
        segment = state.segments[command.segment] if state is not None else None
        if not isinstance(segment, Content):
            return command
        before = self._tokenizer.decode(segment.tokens)[: command.offset]
        missing = command.offset - len(before)
        return Extend(
            sequence=command.sequence,
            epoch=command.epoch,
            segment=command.segment,
            offset=self._tokenizer.count(before) + missing,
            tokens=tuple(self._tokenizer.encode(command.text or "")),
            last=command.last,
        )


def _rewind(state: SequenceState, position: int) -> None:
    state.computed = min(state.computed, position)
