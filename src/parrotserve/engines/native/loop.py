"""The native engine's core: commands in, one step at a time, events out. Synchronous, and free of I/O.

    core.handle(command)      changes the work to do
    core.step()               plan -> batch -> backend -> sample -> events

Each stage is a module: `planner`, `persistent_batch`, a `backend`, `step_sampling`, and `open_sequences`, which keeps
the sequences and makes the events. Processes and pipes are outside (`engines.worker`).
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile

from parrotserve.aside import Doing, at_once
from parrotserve.engines.base import Command, EndStatus, Event, Heartbeat, Release, Retain
from parrotserve.engines.native.backend import Backend
from parrotserve.engines.native.cache import PageCache
from parrotserve.engines.native.minimum_share import MinimumShares
from parrotserve.engines.native.open_sequences import OpenSequences
from parrotserve.engines.native.output_text import EngineTokenizer
from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.persistent_batch import BatchBuilder, BuiltBatch
from parrotserve.engines.native.plan import Planned
from parrotserve.engines.native.planner import Planner
from parrotserve.engines.native.progress import Progress
from parrotserve.engines.native.radix import Salt
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.native.settings import CoreSettings
from parrotserve.engines.native.step_sampling import next_tokens
from parrotserve.engines.native.timing import StepShape, StepTimes


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
        """`clock` gives seconds, to measure steps. `doing` does work that would delay steps (making grammars), on
        another thread or at once."""
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
            minimum=MinimumShares(settings.throughput_share),
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
        """Whether the last plan was empty: nothing can run until a command changes something."""
        self._steps = 0
        self._times = StepTimes()

    @property
    def idle(self) -> bool:
        """Whether `step` would do nothing until the next command."""
        if self._sequences.news:
            return False
        return self._stalled or not any(state.runnable for state in self._sequences)

    def call_when_ready(self, wake: Callable[[], None]) -> None:
        """Sets `wake`, which is called, on any thread, when an idle core gets something to do without a command."""
        self._sequences.call_when_ready(wake)

    def prepare(self) -> None:
        """Makes what the first grammar needs. To be called while the core is idle, as it would block steps."""
        self._sequences.prepare()

    def heartbeat(self) -> Heartbeat:
        """The engine's present state.

        While nothing can run until the next command, no sequence counts as running: an engine with running sequences
        that makes no steps would be taken to hang.
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
        """Handles one command; the next `step` returns the events that result."""
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
        """Runs one batch, if anything can run, and returns the events since the last step."""
        started = self._clock()
        if self._sequences.resume_ready():
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
        """Computes the planned tokens, and samples the next token of every output whose tokens are all computed."""
        built = self._batches.build(plan)
        logits = self._backend.step(built.batch)
        for planned in plan:
            self._note_computed(planned.state, planned.count)
        drafts = {planned.state: planned.draft for planned in plan if planned.draft}
        sampled = next_tokens(built, logits, drafts, self._sequences.fail)
        self._steps += 1
        self._note_time(plan, built, started)
        for state, tokens, logprob in sampled:
            if state in drafts:
                self._push_accepted(state, tokens, drafts[state])
            else:
                self._sequences.push(state, tokens[0], logprob)
        for planned in plan:
            if planned.state.runs_out:
                self._sequences.end(planned.state, EndStatus.DONE)

    def _push_accepted(self, state: SequenceState, tokens: Sequence[int], draft: Sequence[int]) -> None:
        """Adds the first token to the output, and those after it as far as the draft equals what the model chose: the
        KV of these tokens of the draft has been computed."""
        hits = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(draft, tokens[:-1], strict=False)))
        for place, token in enumerate(tokens[: hits + 1]):
            if place:
                self._note_computed(state, 1)
            if not self._sequences.push(state, token, more=place < hits):
                break

    def _note_computed(self, state: SequenceState, count: int) -> None:
        """Notes that the KV of the next `count` tokens is computed. Pages that are now full are published, those of
        generated tokens too, so that later sequences that extend this one can share them."""
        page_tokens = self._cache.page_tokens
        before = state.computed // page_tokens
        state.computed += count
        state.seen_through = max(state.seen_through, state.computed)
        full = state.computed // page_tokens
        if full > before:
            table = self._cache.publish(state.salt, state.known, state.pages[:full])
            if table != state.pages[:full]:
                state.pages[:full] = table
                state.table_version += 1

    def _note_time(self, plan: Sequence[Planned], built: BuiltBatch, started: float) -> None:
        """Divides the step's time among its sequences by their rows, and passes it to both models of step times: the
        planner's, and the service's (`StepsTimed`)."""
        now, rows = self._clock(), len(built.batch.tokens)
        seconds = now - started
        decode_rows = 0
        for planned in plan:
            count = planned.count + len(planned.draft)
            planned.state.engine_seconds += seconds * count / rows
            decode_rows += count if planned.decodes else 0
        writing = (one.state for one in plan if one.decodes and one.state.output is not None)
        decoded = Counter(state.objective for state in writing)
        shape = StepShape(prefill_tokens=rows - decode_rows, decode_rows=decode_rows, attended=built.attended)
        self._times.note(shape, kv_tokens=built.kv_tokens, seconds=seconds)
        self._planner.learn(shape, decoded=decoded, seconds=seconds, now=now)
