"""The native engine's core: commands in, one step at a time, events out. Synchronous, and free of I/O.

    core.handle(command)      changes what is to be done
    core.step()               plan -> batch -> backend -> sample -> events

Everything about processes and pipes is outside.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile

from parrotserve.aside import Doing, at_once
from parrotserve.criteria import Objective
from parrotserve.engines.base import Command, EndStatus, Event, Heartbeat, Release, Retain
from parrotserve.engines.native.backend import Backend
from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.choice import Choice
from parrotserve.engines.native.draw import Draw
from parrotserve.engines.native.logits import Logits
from parrotserve.engines.native.open_sequences import OpenSequences
from parrotserve.engines.native.output import EngineTokenizer
from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.plan import Planned
from parrotserve.engines.native.planner import Planner
from parrotserve.engines.native.progress import Progress
from parrotserve.engines.native.radix import Salt
from parrotserve.engines.native.sampler import sample
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.native.settings import CoreSettings
from parrotserve.engines.native.share import MinimumShare
from parrotserve.engines.native.speculation import Drafts
from parrotserve.engines.native.steady import BatchBuilder, BuiltBatch
from parrotserve.engines.native.timing import StepHeld, StepTimes
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.sampling import TokenLogprob

log = logging.getLogger(__name__)

Answers = dict[int, tuple[int, TokenLogprob | None]]
"""The token of each row that was asked about, and its log-probability where that is told."""
Sampled = tuple[SequenceState, list[int], TokenLogprob | None]
"""The next token of a sequence, and those after it if its draft is right; the log-probability, where that is told."""


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
        doing: Doing = at_once,
    ) -> None:
        """`doing` does, on another thread or at once, what would keep steps waiting."""
        self._backend = backend
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._planner = Planner(
            cache,
            prefill_chunk=settings.prefill_chunk,
            max_running=settings.max_running,
            share=settings.share,
            pace=Pace(tpot=settings.tpot, adapt=settings.adapt),
            minimum=MinimumShare(settings.throughput_share),
            speculate=settings.speculate,
        )
        self._batches = BatchBuilder(cache.page_tokens, group=settings.group, align_tokens=settings.align_tokens)
        self._sequences = OpenSequences(
            Progress(tokenizer, settings, rewind=self._planner.rewind, doing=doing),
            credits=settings.credits,
            vocabulary=settings.vocabulary,
            forget=lambda state: self._planner.rewind(state, 0),
        )
        self._stalled = False
        self._steps = 0
        self._times = StepTimes()

    @property
    def idle(self) -> bool:
        """Whether `step` would do nothing until the next command."""
        if self._sequences.news:
            return False
        return self._stalled or not any(state.runnable for state in self._sequences)

    def call_when_ready(self, wake: Callable[[], None]) -> None:
        """`wake` is called, on any thread, when an idle core has something to do without a command."""
        self._sequences.call_when_ready(wake)

    def prepare(self) -> None:
        """Makes what the first grammar needs, while there is nothing to do: it lets no step be made meanwhile."""
        self._sequences.prepare()

    def heartbeat(self) -> Heartbeat:
        """What the engine holds now.

        Nobody runs while nothing can before the next command: an engine that runs something and makes no step is
        taken for one that hangs.
        """
        stats = self._cache.stats()
        running = 0 if self._stalled else sum(state.runnable and bool(state.pages) for state in self._sequences)
        return Heartbeat(
            running=running,
            waiting=len(self._sequences) - running,
            used_pages=stats.used,
            cached_pages=stats.cached,
            retained_pages=stats.retained,
            free_pages=stats.free,
            steps=self._steps,
        )

    def handle(self, command: Command) -> None:
        """Takes in one command; the next `step` tells what came of it."""
        self._stalled = False
        self._planner.unsettle()
        match command:
            case Retain():
                self._cache.retain(command.key, Salt(command.salt, command.public), command.tokens)
            case Release():
                self._cache.release(command.key)
            case _:
                self._sequences.handle(command)

    def step(self) -> list[Event]:
        """Runs one batch, if anything can run, and returns what there is to tell since the last step."""
        started = self._clock()
        if self._sequences.go_on():
            self._planner.unsettle()
        plan = self._planner.plan(self._sequences, started)
        self._stalled = not plan
        if plan:
            self._run(plan, started)
        if self._settings.check:
            self._cache.check_integrity()
        events = self._sequences.take_events()
        self._times.add_to(events)
        return events

    def _run(self, plan: Sequence[Planned], started: float) -> None:
        built = self._batches.build(plan)
        logits = self._backend.step(built.batch)
        for planned in plan:
            self._note_computed(planned.state, planned.count)
        drafts = {planned.state: planned.draft for planned in plan if planned.draft}
        sampled = self._sample(built, logits, drafts)
        self._steps += 1
        self._note_time(plan, built, started)
        for state, tokens, logprob in sampled:
            if state in drafts:
                self._push(state, tokens, drafts[state])
            else:
                self._sequences.push(state, tokens[0], logprob)
        for planned in plan:
            if planned.state.runs_out:
                self._sequences.end(planned.state, EndStatus.DONE)

    def _push(self, state: SequenceState, tokens: Sequence[int], draft: Sequence[int]) -> None:
        """The output goes on with the first token, and with as many more as its draft is right: their KV is there."""
        hits = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(draft, tokens[:-1], strict=False)))
        for place, token in enumerate(tokens[: hits + 1]):
            if place:
                self._note_computed(state, 1)
            if not self._sequences.push(state, token, more=place < hits):
                break

    def _note_computed(self, state: SequenceState, count: int) -> None:
        """Full pages are published, with generated tokens too: whoever comes later extends this sequence."""
        page_tokens = self._cache.page_tokens
        before = state.computed // page_tokens
        state.computed += count
        state.seen_through = max(state.seen_through, state.computed)
        full = state.computed // page_tokens
        if full > before:
            table = self._cache.publish(state.salt, state.known, state.pages[:full])
            if table != state.pages[:full]:
                state.pages[:full] = table
                state.moves += 1

    def _sample(self, built: BuiltBatch, logits: Logits, drafts: Drafts) -> list[Sampled]:
        """The next tokens of each of the batch's sequences."""
        choice = built.choice or Choice([state.output for state in built.rows if state.output is not None])
        built.choice = choice if choice.lasts else None
        sampled: list[Sampled] = []
        asking: dict[int, Draw] = {}
        chosen, highest = choice.tokens(logits), logits.highest.tolist()
        for state, rows in built.runs:
            row = rows[0]
            try:
                if math.isnan(highest[row]):
                    raise EngineFailed("The model's logits are not numbers: its weights are damaged, or overflow.")
                token = chosen[row]
                if token is not None:
                    sampled.append((state, [token, *_known(chosen, highest, rows[1:])], None))
                elif state.output is not None:
                    draws = state.output.draws(logits.rows.shape[1], drafts.get(state, ()))
                    asking.update(zip(_numbers(highest, rows), draws, strict=False))
            except ParrotError as error:
                self._sequences.end(state, EndStatus.FAILED, error)
        return sampled + _answered(built.runs, self._asked(built, logits, asking)) if asking else sampled

    def _asked(self, built: BuiltBatch, logits: Logits, asking: Mapping[int, Draw]) -> Answers:
        """What the sampler says to these draws. A question that it cannot answer ends the sequence that asks it, and
        nobody else's."""
        try:
            return sample(logits, asking)
        except Exception:
            log.exception("sampling failed; trying each sequence by itself")
        answers: Answers = {}
        for state, rows in built.runs:
            asked = {row: asking[row] for row in rows if row in asking}
            try:
                answers |= sample(logits, asked)
            except Exception as error:
                failure = EngineFailed(f"The next token could not be drawn: {type(error).__name__}.")
                self._sequences.end(state, EndStatus.FAILED, failure)
        return answers

    def _note_time(self, plan: Sequence[Planned], built: BuiltBatch, started: float) -> None:
        """Its sequences share the step's time by their rows; the planner's model learns from it, and the service's."""
        now, rows = self._clock(), len(built.batch.tokens)
        seconds = now - started
        decode_rows = 0
        for planned in plan:
            count = planned.count + len(planned.draft)
            planned.state.engine_seconds += seconds * count / rows
            decode_rows += count if planned.decodes else 0
        decoded = [planned.state.objective for planned in plan if planned.decodes and planned.state.output is not None]
        latency = decoded.count(Objective.LATENCY)
        held = StepHeld(prefill_tokens=rows - decode_rows, decode_rows=decode_rows, attended=built.attended)
        self._times.note(held, kv_tokens=built.kv_tokens, seconds=seconds)
        self._planner.learn(held, latency=latency, other=len(decoded) - latency, seconds=seconds, now=now)


def _answered(
    runs: Sequence[tuple[SequenceState, Sequence[int]]], answers: Mapping[int, tuple[int, TokenLogprob | None]]
) -> list[Sampled]:
    """What the sampler said, by sequence."""
    found = ((state, [answers[row] for row in rows if row in answers]) for state, rows in runs)
    return [(state, [token for token, _ in told], told[0][1]) for state, told in found if told]


def _numbers(highest: Sequence[float], rows: Sequence[int]) -> Iterator[int]:
    """These rows, up to the first whose logits are no numbers."""
    return takewhile(lambda row: not math.isnan(highest[row]), rows)


def _known(tokens: Sequence[int | None], highest: Sequence[float], rows: Sequence[int]) -> Sequence[int]:
    """The tokens of these rows, up to the first that is not known, or whose logits are no numbers."""
    known: list[int] = []
    for row in _numbers(highest, rows):
        token = tokens[row]
        if token is None:
            break
        known.append(token)
    return known
