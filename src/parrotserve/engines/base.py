"""The engine contract: commands in, lists of events out, for every kind of engine.

An engine serves one model. It is told of *sequences* (a request as an engine runs it): lists of segments that
are either filled with known tokens or generated. Rules that every engine keeps, and the contract suite checks:

- Commands are idempotent by (sequence, epoch). The same command again changes nothing; one of an older epoch is
  ignored; an `Open` with a newer epoch replaces what the sequence was doing.
- Each opened (sequence, epoch) ends in exactly one `SequenceEnded`, whatever happens, and no event of it follows.
- Events of one sequence come in the order of its segments; the texts of one segment's `TokensGenerated` join
  to the text in its `SegmentFinished`.
- At most `EngineDescription.credits` sequences are open at once. More are refused by `EngineFailed`.
- A segment that is neither streamed nor followed produces no `TokensGenerated`.
- `Heartbeat` comes every `HEARTBEAT_SECONDS`; after three missed the engine counts as hung.
- `StepsTimed` is the only event that may be left out: an engine that cannot time its steps never sends it. It seldom
  comes alone, so that nobody is woken for it.
- An optional command that the engine's capabilities do not name is never sent to it.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum

import msgspec

from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.ids import EngineId, RequestId
from parrotserve.sampling import Calls, FinishReason, Sampling, TokenLogprob, Usage

HEARTBEAT_SECONDS = 1.0
MISSED_HEARTBEATS = 3
FOLLOWED_TOKENS = 16


class Capability(StrEnum):
    """What an engine can do beyond running whole prompts; lacking one costs time, never the result."""

    TOKENS = "tokens"
    """Prompts are token ids; without it they are text."""
    LATE_SEGMENTS = "late_segments"
    PAUSE = "pause"
    UPDATE = "update"
    RETENTION = "retention"
    GRAMMAR = "grammar"
    LOGPROBS = "logprobs"


class EngineDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is, said once when it is ready."""

    model: str
    """The name under which requests ask for its model."""
    context_length: int
    """The most tokens that one sequence may have, prompt and outputs together, given its model and cache."""
    cut_by_cache: bool = False
    """Whether the model has a longer context, of which the cache does not hold more."""
    cache_tokens: int
    """How many tokens' KV its cache holds."""
    page_tokens: int
    credits: int
    """How many sequences may be open at once."""
    batch: int = 0
    """How many of them one step runs at most; 0: all."""
    capabilities: frozenset[Capability]


def most_allowed(context_length: int, *, cut_by_cache: bool, shorten: str = "the prompt") -> str:
    """How long a sequence may be, why, and what to do: the end of a message about one that is longer."""
    if cut_by_cache:
        why, advice = "which is all that the KV cache holds", "Raise kv_memory, or shorten"
    else:
        why, advice = "that is the model's context", "Shorten"
    return f"prompt and outputs together may have {context_length}, {why}. {advice} {shorten}."


# --- What a sequence is made of -----------------------------------------------------------------------------


class Fill(msgspec.Struct, frozen=True, tag="fill"):
    """Known content. Token ids where the engine has TOKENS, else text. Both None: late, `Extend` brings it."""

    tokens: tuple[int, ...] | None = None
    text: str | None = None

    @property
    def late(self) -> bool:
        return self.tokens is None and self.text is None


class Generate(msgspec.Struct, frozen=True, tag="generate", kw_only=True):
    """An output. Its sampling has a seed; randomness is keyed by (seed, position in the output).

    The finished text is the decoded tokens without the stop string, and without one leading space unless its sampling
    keeps that.
    """

    sampling: Sampling
    stream: bool = False
    delivered: tuple[int, ...] = ()
    """Tokens of this output that an earlier run has delivered: the output goes on after them, as if it had
    generated them itself, and reports only what follows."""
    calls: Calls | None = None

    @property
    def has_grammar(self) -> bool:
        """Whether not every text will do."""
        return self.sampling.schema is not None or self.calls is not None


EngineSegment = Fill | Generate


# --- Commands -----------------------------------------------------------------------------------------------


class Open(msgspec.Struct, frozen=True, tag="open", kw_only=True):
    """Run a sequence. `salt` separates what may share KV: equal tokens under equal salts share. The first `public`
    tokens are everybody's, whatever the salt; what follows them is not."""

    sequence: RequestId
    epoch: int
    segments: tuple[EngineSegment, ...]
    salt: str
    public: int = 0
    objective: Objective = Objective.LATENCY
    precedence: Precedence = NO_PRECEDENCE


class Extend(msgspec.Struct, frozen=True, tag="extend", kw_only=True):
    """Content of a late segment, at `offset` tokens (or characters) from its start; `last` completes it."""

    sequence: RequestId
    epoch: int
    segment: int
    offset: int = 0
    tokens: tuple[int, ...] | None = None
    text: str | None = None
    last: bool = True


class Update(msgspec.Struct, frozen=True, tag="update", kw_only=True):
    """A new objective or precedence, or outputs that somebody now streams: their tokens so far come in the next events.

    Of an output to `follow` tokens come `FOLLOWED_TOKENS` or more at a time, and not its last ones: whoever reads it
    ahead of its end is not to be woken in every step.
    """

    sequence: RequestId
    epoch: int
    objective: Objective | None = None
    precedence: Precedence | None = None
    stream: tuple[int, ...] = ()
    follow: tuple[int, ...] = ()


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """Make no progress until `Resume`; its KV may be reclaimed."""

    sequence: RequestId
    epoch: int


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    sequence: RequestId
    epoch: int


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End it now with status CANCELLED and free what it holds."""

    sequence: RequestId
    epoch: int


class Retain(msgspec.Struct, frozen=True, tag="retain"):
    """Keep the KV of this prefix, once it is resident, in preference to all that is not retained. `salt` and `public`
    are those of the sequences that begin with it."""

    key: str
    salt: str
    tokens: tuple[int, ...]
    public: int = 0


class Release(msgspec.Struct, frozen=True, tag="release"):
    key: str


Command = Open | Extend | Update | Pause | Resume | Cancel | Retain | Release


# --- Events -------------------------------------------------------------------------------------------------


class EndStatus(StrEnum):
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TokensGenerated(msgspec.Struct, frozen=True, tag="tokens", kw_only=True):
    """New tokens of a streamed output: `tokens[0]` is the output's token number `offset`.

    `text` is what they add for a reader; text that a stop string or an unfinished character might still take
    back is held until it is certain, so it may be empty.
    """

    sequence: RequestId
    epoch: int
    segment: int
    offset: int
    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class SegmentFinished(msgspec.Struct, frozen=True, tag="finished", kw_only=True):
    """An output is complete: all its tokens (delivered ones included) and its whole text."""

    sequence: RequestId
    epoch: int
    segment: int
    tokens: tuple[int, ...]
    text: str
    reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()


class SequenceEnded(msgspec.Struct, frozen=True, tag="ended", kw_only=True):
    """The one terminal event of a (sequence, epoch). `error` is (code, message) of `parrotserve.errors`."""

    sequence: RequestId
    epoch: int
    status: EndStatus
    usage: Usage = Usage()
    error: tuple[str, str] | None = None


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat", kw_only=True):
    """The engine is alive; what it holds now."""

    running: int = 0
    waiting: int = 0
    used_pages: int = 0
    """Pages that open sequences hold."""
    cached_pages: int = 0
    """Pages of earlier sequences, kept for whoever shares them, evictable."""
    retained_pages: int = 0
    """Of the cached pages, those that a `Retain` asks to keep."""
    free_pages: int = 0
    steps: int = 0
    """Steps since the start: two heartbeats with work and the same number mean a stuck step loop."""


class StepsTimed(msgspec.Struct, frozen=True, tag="steps", kw_only=True):
    """What some steps held, summed, and how long they took: a point for a cost model.

    Comes with the other events of a step, so of a stream there is one a step; steps that tell nothing else are
    summed until there is something to tell, or for about a tenth of a second. What unlike steps take does not tell what
    each does, so they had better come apart: several of these, each of steps that hold about as much.
    """

    steps: int
    prefill_tokens: int
    """Rows that are not decode rows."""
    decode_rows: int
    """Rows that continue a sequence by its one unknown token."""
    kv_tokens: int
    """Tokens whose KV attention read; one that several sequences share, and that is read once for them, once."""
    attended: int
    """Pairs of a row and a token that it attends to, shared or not."""
    seconds: float
    """Of the steps as wholes: planning, computing, sampling."""


Event = TokensGenerated | SegmentFinished | SequenceEnded | Heartbeat | StepsTimed


class Engine(ABC):
    """A handle on one engine, wherever it runs. Owned by one event loop."""

    id: EngineId

    @abstractmethod
    async def start(self) -> EngineDescription:
        """Bring it up and say what it is. Raises `ModelError` or `EngineFailed`, `EngineRefused` where it cannot run
        here as it is set up; then nothing is left running."""

    @abstractmethod
    def describe(self) -> EngineDescription:
        """What `start` returned."""

    @abstractmethod
    async def send(self, commands: Sequence[Command]) -> None:
        """Hand over commands, in order. Waits while the engine's inbox is full. Raises `EngineFailed` if it is
        gone."""

    @abstractmethod
    def events(self) -> AsyncIterator[list[Event]]:
        """All events, one list a step, until `close`. Raises `EngineFailed` when the engine dies. A consumer that
        does not keep up slows the engine down; it loses nothing."""

    @abstractmethod
    async def close(self) -> None:
        """End it now; open sequences get no further events. Safe to call twice."""
