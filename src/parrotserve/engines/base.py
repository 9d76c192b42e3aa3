"""The engine contract: commands in, lists of events out, for every kind of engine.

An engine serves one model. It runs *sequences* (a request as an engine runs it): lists of segments that are either
filled with known tokens or generated. Rules that every engine keeps, and that the contract suite checks:

- Commands are idempotent by (sequence, epoch). Repeating a command changes nothing; a command of an older epoch is
  ignored; an `Open` with a newer epoch replaces the sequence's current run.
- Each opened (sequence, epoch) ends in exactly one `SequenceEnded`, whatever happens, and no event of it follows.
- Events of one sequence come in the order of its segments; the texts of one segment's `TokensGenerated` concatenate
  to the text in its `SegmentFinished`.
- At most `EngineDescription.credits` sequences are open at once. Further ones are refused with `EngineFailed`.
- A segment that is neither streamed nor followed produces no `TokensGenerated`.
- `Heartbeat` comes every `HEARTBEAT_SECONDS`; after three missed ones the engine counts as hung.
- `StepsTimed` is the only optional event: an engine that cannot time its steps never sends it. It is mostly sent
  together with other events, so that nobody is woken just for it.
- Optional commands are sent only to engines whose capabilities include them.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum

import msgspec

from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.ids import EngineId, RequestId
from parrotserve.sampling import FinishReason, Sampling, TokenLogprob, ToolCalls, Usage

HEARTBEAT_SECONDS = 1.0
MISSED_HEARTBEATS = 3
FOLLOWED_TOKENS = 16


class Capability(StrEnum):
    """What an engine can do beyond running whole prompts; without one, results take longer but are the same."""

    TOKENS = "tokens"
    """Prompts are token ids; without it they are text."""
    LATE_SEGMENTS = "late_segments"
    PAUSE = "pause"
    UPDATE = "update"
    RETENTION = "retention"
    GRAMMAR = "grammar"
    LOGPROBS = "logprobs"


class EngineDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of an engine, reported once when it is ready."""

    model: str
    """The name by which requests ask for its model."""
    context_length: int
    """The most tokens that one sequence may have, prompt and outputs together, given its model and cache."""
    cut_by_cache: bool = False
    """Whether the context length is limited by the cache, the model's own context being longer."""
    cache_tokens: int
    """Capacity of its KV cache, in tokens."""
    page_tokens: int
    credits: int
    """The most sequences that may be open at once."""
    batch: int = 0
    """The most of them that one step runs; 0: no limit."""
    capabilities: frozenset[Capability]


def most_allowed(context_length: int, *, cut_by_cache: bool, shorten: str = "the prompt") -> str:
    """The end of an error message about a sequence that is too long: the limit, its reason, and what to do."""
    if cut_by_cache:
        why, advice = "which is all that the KV cache holds", "Raise kv_memory, or shorten"
    else:
        why, advice = "that is the model's context", "Shorten"
    return f"prompt and outputs together may have {context_length}, {why}. {advice} {shorten}."


# --- What a sequence is made of -----------------------------------------------------------------------------


class Fill(msgspec.Struct, frozen=True, tag="fill"):
    """Known content: token ids if the engine has TOKENS, else text. Both None: late; `Extend` supplies it."""

    tokens: tuple[int, ...] | None = None
    text: str | None = None

    @property
    def late(self) -> bool:
        return self.tokens is None and self.text is None


class Generate(msgspec.Struct, frozen=True, tag="generate", kw_only=True):
    """An output. Its sampling has a seed; randomness is keyed by (seed, position in the output).

    The finished text is the decoded tokens without the stop string, and without one leading space unless the sampling
    keeps it.
    """

    sampling: Sampling
    stream: bool = False
    delivered: tuple[int, ...] = ()
    """Tokens of this output that an earlier run has delivered: the output continues after them, as if it had
    generated them itself, and reports only what follows."""
    calls: ToolCalls | None = None

    @property
    def has_grammar(self) -> bool:
        """Whether a grammar (JSON schema or calls) constrains the output."""
        return self.sampling.schema is not None or self.calls is not None


EngineSegment = Fill | Generate


# --- Commands -----------------------------------------------------------------------------------------------


class Open(msgspec.Struct, frozen=True, tag="open", kw_only=True):
    """Run a sequence. Equal tokens share KV only under equal `salt`s, except the first `public` tokens, which share
    KV whatever the salt."""

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
    """A new objective or precedence, or outputs (`stream`) that somebody now streams: their tokens so far come with the
    next events.

    The tokens of outputs to `follow` come `FOLLOWED_TOKENS` or more at a time, and not the last ones, so that requests
    that read an output ahead of its end are not woken in every step.
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
    """End the sequence now with status CANCELLED, and free its resources."""

    sequence: RequestId
    epoch: int


class Retain(msgspec.Struct, frozen=True, tag="retain"):
    """Once the KV of this prefix is resident, evict it only after everything that is not retained. `salt` and `public`
    are those of the sequences that begin with the prefix."""

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

    `text` is what they add for a reader. It may be empty: text that may still turn out to be part of a stop string or
    of an unfinished character is held back until it is certain.
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
    """A sign of life, with the engine's present state."""

    running: int = 0
    waiting: int = 0
    used_pages: int = 0
    """Pages that open sequences hold."""
    cached_pages: int = 0
    """Pages of earlier sequences, kept for sequences that may share them; evictable."""
    retained_pages: int = 0
    """Cached pages that a `Retain` asks to keep."""
    free_pages: int = 0
    steps: int = 0
    """Steps since the start. If it does not change over many heartbeats with work, the step loop is stuck."""


class StepsTimed(msgspec.Struct, frozen=True, tag="steps", kw_only=True):
    """The work of some steps, summed, and how long they took: a data point for a cost model.

    It is sent with the other events of a step, so a stream gives one per step. Steps without other events are summed
    until there is one, or for about a tenth of a second. A sum of unlike steps says little about what each kind costs,
    so there should be one of these for each group of similar steps.
    """

    steps: int
    prefill_tokens: int
    """Rows that are not decode rows."""
    decode_rows: int
    """Rows that compute the one token that a sequence lacks, and those of its draft."""
    kv_tokens: int
    """Tokens whose KV attention read. A token that is shared by several sequences and read once counts once."""
    attended: int
    """Pairs of a row and a token that it attends to, shared or not."""
    seconds: float
    """Duration of the whole steps: planning, computing and sampling."""


Event = TokensGenerated | SegmentFinished | SequenceEnded | Heartbeat | StepsTimed


class Engine(ABC):
    """A handle on one engine, wherever it runs. Owned by one event loop."""

    id: EngineId

    @abstractmethod
    async def start(self) -> EngineDescription:
        """Start the engine, and return its description. Raises `ModelError` or `EngineFailed`, or `EngineRefused` if it
        cannot run here with its settings; then nothing is left running."""

    @abstractmethod
    def describe(self) -> EngineDescription:
        """The description that `start` returned."""

    @abstractmethod
    async def send(self, commands: Sequence[Command]) -> None:
        """Hand over commands, in order. Waits while the engine's inbox is full. Raises `EngineFailed` if the engine is
        gone."""

    @abstractmethod
    def events(self) -> AsyncIterator[list[Event]]:
        """All events, one list per step, until `close`. Raises `EngineFailed` when the engine dies. A consumer that
        does not keep up slows the engine down, but loses no events."""

    @abstractmethod
    async def close(self) -> None:
        """End the engine now; open sequences get no further events. Safe to call twice."""
