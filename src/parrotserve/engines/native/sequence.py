"""One open sequence: its segments, and how much of them is known and computed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.engines.base import Generate
from parrotserve.engines.native.output import OutputState
from parrotserve.engines.native.radix import public_tokens
from parrotserve.ids import RequestId
from parrotserve.sampling import Usage

Turn = tuple[tuple[int, int], int]
_RANKS = {objective: rank for rank, objective in enumerate(Objective)}


@dataclass(slots=True)
class Content:
    """A filled segment: its tokens so far, and whether they are all."""

    tokens: list[int]
    complete: bool

    def extend(self, offset: int, tokens: Sequence[int], *, last: bool) -> None:
        """Adds the new ones of `tokens`, which begin at `offset`. Raises ValueError if there is a gap before them."""
        if self.complete:
            return
        have = len(self.tokens)
        if offset > have:
            raise ValueError(f"tokens {have} to {offset - 1} of a late segment never came")
        self.tokens.extend(tokens[have - offset :])
        self.complete = last


@dataclass(slots=True, eq=False)
class SequenceState:
    """The engine's state of one (sequence, epoch). Positions count tokens from the sequence's start."""

    sequence: RequestId
    epoch: int
    salt: str
    objective: Objective
    arrival: int
    segments: list[Content | Generate]
    precedence: Precedence = NO_PRECEDENCE
    streamed_segments: set[int] = field(default_factory=set[int])
    """Segments whose outputs somebody streams."""
    followed_segments: set[int] = field(default_factory=set[int])
    """Segments whose outputs another request reads ahead of their end."""
    paused: bool = False
    dormant: bool = False
    """Whether it runs ahead, and nothing of it is to be computed until more content comes."""

    known: list[int] = field(default_factory=list[int])
    """All tokens up to the first one that is not known yet."""
    cursor: int = 0
    """Index of the first segment that is not complete."""
    taken: int = 0
    """Number of tokens of that segment's content that are in `known`."""
    output: OutputState | None = None
    """The current output, if the cursor is at one that has started."""
    grammar: Future[Any] | None = None
    """The grammar that the output at the cursor waits for; until it is ready, the sequence runs ahead."""
    written: list[range] = field(default_factory=list[range])
    """The ranges of finished outputs in `known`."""

    pages: list[int] = field(default_factory=list[int])
    table_version: int = 0
    """Increases with every change of `pages` other than at their end, and when computed tokens are given up."""
    computed: int = 0
    """Number of known tokens whose KV is in `pages`."""
    page_keys: list[int] = field(default_factory=list[int])
    """For each full page of known tokens, a hash of everything up to its end."""

    held_steps: int = 0
    """Number of steps that it has left to shorter outputs."""
    seen_through: int = 0
    """Positions below this have been computed or found in the cache before, and are counted in the usage."""
    cached_tokens: int = 0
    output_tokens: int = 0
    engine_seconds: float = 0.0

    wants_output: bool = field(init=False)
    """Whether it has outputs; if not, it only warms the cache."""

    def __post_init__(self) -> None:
        self.wants_output = any(isinstance(segment, Generate) for segment in self.segments)

    @property
    def outputs_left(self) -> bool:
        return any(isinstance(segment, Generate) for segment in self.segments[self.cursor :])

    @property
    def runs_out(self) -> bool:
        """Whether it is done without generating: it has no outputs, and all of it is computed."""
        return not self.wants_output and self.cursor == len(self.segments) and self.computed == len(self.known)

    @property
    def runs_ahead(self) -> bool:
        """Whether it waits for content, or for a grammar. Computing it ranks below sequences that can finish."""
        return self.output is None and self.cursor < len(self.segments)

    @property
    def decodes(self) -> bool:
        """Whether its next step is one token of an output."""
        return self.output is not None and self.computed == len(self.known) - 1

    @property
    def urgent(self) -> bool:
        """Whether it is latency-sensitive and decodes, so that the TPOT bound applies."""
        return self.objective is Objective.LATENCY and self.decodes

    @property
    def runnable(self) -> bool:
        return not self.paused and not self.dormant and self.computed < len(self.known)

    @property
    def can_finish(self) -> bool:
        """Whether it is runnable and does not wait for content or a grammar."""
        return self.runnable and not self.runs_ahead

    @property
    def work(self) -> tuple[int, tuple[int, int]]:
        """Identifies the piece of work that it belongs to: objective and precedence. Lower is more important."""
        return (_RANKS[self.objective], self.precedence.order)

    @property
    def turn(self) -> Turn:
        """Its place among sequences of the same objective: lower goes first. Sequences of one piece of work have equal
        turns; without a precedence, arrival decides."""
        order = self.precedence.order
        return (order, self.arrival if order == NO_PRECEDENCE.order else 0)

    @property
    def is_streamed(self) -> bool:
        """Whether somebody streams the current output."""
        return self.output is not None and self.output.segment in self.streamed_segments

    @property
    def rank(self) -> tuple[bool, int, tuple[int, int], int]:
        """Its importance: lower is more important."""
        return (self.runs_ahead, *self.work, self.arrival)

    @property
    def known_length(self) -> int:
        """The least number of tokens of the whole sequence, as far as its content is known."""
        content = sum(len(segment.tokens) for segment in self.segments if isinstance(segment, Content))
        return content + self.wants_output

    @property
    def matchable(self) -> int:
        """Number of known tokens whose KV may come from the cache: all but the last one, which is computed for the
        logits after it; all of them while it runs ahead, as no logits are needed then."""
        return len(self.known) - (not self.runs_ahead)

    def take_content(self) -> Iterator[Generate]:
        """Moves the cursor over known content; yields every output that it reaches, for the caller to start."""
        while self.cursor < len(self.segments):
            segment = self.segments[self.cursor]
            if isinstance(segment, Generate):
                if self.output is None:
                    yield segment
                if self.output is not None:
                    return
                continue
            self.known.extend(segment.tokens[self.taken :])
            self.taken = len(segment.tokens)
            if not segment.complete:
                return
            self._next_segment()

    def end_output(self) -> int:
        """Keeps the tokens of the finished output that stay in the sequence, and moves to the next segment. Returns how
        many computed tokens are still valid."""
        assert self.output is not None
        kept = self.output.kept()
        had = self.known[self.output.start :]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(had, kept, strict=False)))
        self.known[self.output.start :] = kept
        self.written.append(range(self.output.start, len(self.known)))
        valid = min(self.computed, self.output.start + same)
        if same < len(had):
            self.page_keys.clear()
        self.output = None
        self._next_segment()
        return valid

    def page_key(self, index: int, page_tokens: int) -> int:
        """The key of full page `index`: equal for equal prefixes under equal salts."""
        while len(self.page_keys) <= index:
            count = len(self.page_keys)
            tokens = tuple(self.known[count * page_tokens : (count + 1) * page_tokens])
            self.page_keys.append(hash((self._key_before(count, page_tokens), tokens)))
        return self.page_keys[index]

    def keys(self, page_tokens: int) -> Sequence[int]:
        """The keys of all full pages of known tokens."""
        full = len(self.known) // page_tokens
        if full:
            self.page_key(full - 1, page_tokens)
        return self.page_keys

    def end_key(self, page_tokens: int) -> int:
        """A hash of all known tokens, including those after the last full page; equal for equal tokens that may be
        shared."""
        full = len(self.keys(page_tokens))
        return hash((self._key_before(full, page_tokens), tuple(self.known[full * page_tokens :])))

    def _key_before(self, index: int, page_tokens: int) -> int:
        """The part of page `index`'s key that stands for the salt and the pages before it, whose keys must exist."""
        public = public_tokens(self.salt) // page_tokens
        before = self.page_keys[index - 1] if index else hash("" if public else self.salt)
        return hash((before, self.salt)) if public and index == public else before

    def count_cached(self) -> None:
        """Counts computed tokens that were not counted yet as cached: they were found in the cache, and are kept."""
        self.cached_tokens += max(0, self.computed - self.seen_through)
        self.seen_through = max(self.seen_through, self.computed)

    def usage(self) -> Usage:
        """Its usage so far. A prompt counts as far as it was prefilled: one that was refused costs nothing."""
        whole = sum(len(segment.tokens) for segment in self.segments if isinstance(segment, Content))
        written = [*self.written, range(self.output.start, len(self.known))] if self.output else self.written
        outputs = sum(len(range(one.start, min(one.stop, self.seen_through))) for one in written)
        prompt = min(whole, max(0, self.seen_through - outputs))
        return Usage(
            prompt_tokens=prompt,
            cached_tokens=min(self.cached_tokens, prompt),
            output_tokens=self.output_tokens,
            engine_seconds=self.engine_seconds,
        )

    def _next_segment(self) -> None:
        self.cursor += 1
        self.taken = 0
