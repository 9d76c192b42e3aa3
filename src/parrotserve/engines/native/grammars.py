"""Grammars being compiled: a large schema takes seconds, during which the steps of other sequences go on."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from llguidance import LLTokenizer

from parrotserve.aside import Doing
from parrotserve.engines.base import Generate
from parrotserve.engines.native.grammar import Grammar
from parrotserve.engines.native.output_text import EngineTokenizer
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.sampling import CALL_TAGS


class Grammars:
    """Has the grammars of sequences' outputs made, and knows which are ready."""

    def __init__(self, tokenizer: EngineTokenizer, doing: Doing) -> None:
        """`doing` does the work, on another thread or at once."""
        self.wake: Callable[[], None] = lambda: None
        """Called, on any thread, when `take_ready` has one more sequence to give."""
        self._tokenizer = tokenizer
        self._doing = doing
        self._known: LLTokenizer | None = None
        self._tags = frozenset[str]()
        self._knowing = threading.Lock()
        self._ready: deque[SequenceState] = deque()

    @property
    def any_ready(self) -> bool:
        """Whether the grammar of a waiting sequence is ready."""
        return bool(self._ready)

    def take_ready(self) -> list[SequenceState]:
        """Removes and returns the sequences whose grammar has become ready; some of them may have ended."""
        return [self._ready.popleft() for _ in range(len(self._ready))]

    def of(self, state: SequenceState, generate: Generate) -> Grammar | None:
        """The grammar of the output at the sequence's cursor, which must have one; None while it is being made: then
        `take_ready` gives the sequence later. Raises `InvalidSchema` if a schema cannot be enforced."""
        making = state.grammar
        if making is None:
            making = state.grammar = self._doing(state.salt, lambda: self._make(generate))
            if not making.done():
                making.add_done_callback(lambda _: self._note(state))
                return None
        if not making.done():
            return None
        state.grammar = None
        return _made(making)

    def _note(self, state: SequenceState) -> None:
        self._ready.append(state)
        self.wake()

    def prepare(self) -> None:
        """Makes the tables of the vocabulary that every grammar needs. Holds the interpreter's lock for the whole time,
        0.3 s with a vocabulary of 50,000."""
        self._tables()

    def _tables(self) -> LLTokenizer:
        with self._knowing:
            if self._known is None:
                known = LLTokenizer(self._tokenizer.to_json(), eos_token=sorted(self._tokenizer.eos))
                self._tags = frozenset(tag for tag in CALL_TAGS if self._is_token(tag, known))
                self._known = known
            return self._known

    def _make(self, generate: Generate) -> Grammar:
        return Grammar(generate.sampling.schema, self._tables(), calls=generate.calls, tags=self._tags)

    def _is_token(self, tag: str, known: LLTokenizer) -> bool:
        """Whether the model writes the tag as a single token that decodes to the tag's text."""
        tokens = known.tokenize_str(tag, parse_special=True)
        one = len(tokens) == 1 and known.is_special_token(tokens[0])
        return one and self._tokenizer.stream().push(tokens) == tag


def _made(making: Future[Any]) -> Grammar:
    error = making.exception()
    if error is None:
        return making.result()
    if isinstance(error, ParrotError):
        raise error
    raise EngineFailed(f"The grammar of a JSON schema could not be made: {type(error).__name__}.") from error
