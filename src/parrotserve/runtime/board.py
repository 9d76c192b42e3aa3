"""The board: the known text of every variable, and the exchanges that read it.

Nothing is pushed to readers: they are woken, and pull from the board what they have not seen. So a reader that is slow,
or gone, costs only its entry in a set.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice

from parrotserve.errors import Cancelled, GetTimeout, ParrotError
from parrotserve.ids import SessionId, VariableId, shown
from parrotserve.protocol import Delta, ErrorBody, Failure, Value
from parrotserve.sampling import TokenLogprob

Outcome = Value | Failure

AT_ONCE = 200
"""Variables of one exchange that are handled in one turn of the event loop: a few milliseconds, sending included."""


class Board:
    """Texts and outcomes of variables, by variable. Owned by one event loop."""

    def __init__(self) -> None:
        self._topics: dict[VariableId, _Topic] = {}
        self._closed: ParrotError | None = None

    def __len__(self) -> int:
        return len(self._topics)

    def text(self, variable: VariableId) -> str:
        """The text of a variable that readers may have seen so far."""
        topic = self._topics.get(variable)
        return topic.text if topic else ""

    def outcome(self, variable: VariableId) -> Outcome | None:
        """The value or failure of a variable, if it has one yet."""
        topic = self._topics.get(variable)
        return topic.outcome if topic else None

    def append(self, variable: VariableId, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        """Append to a variable's text; `logprobs` are those of the tokens that make the new text."""
        topic = self._topic(variable)
        topic.logprobs += ((len(topic.text), logprob) for logprob in logprobs)
        topic.text += text
        topic.wake(streams_only=True)

    def publish(self, variable: VariableId, outcome: Outcome) -> None:
        """Record that a variable is READY, FAILED or CANCELLED."""
        topic = self._topic(variable)
        topic.outcome = outcome
        if isinstance(outcome, Value):
            topic.text = outcome.value
        topic.wake()

    def reopen(self, variable: VariableId) -> None:
        """Clear the failure of a variable that is produced again. Its text stays, for the rerun begins with it."""
        topic = self._topics.get(variable)
        if topic is not None and isinstance(topic.outcome, Failure):
            topic.outcome = None

    def forget(self, variables: Iterable[VariableId]) -> None:
        """Drop these variables; their readers get `Cancelled`."""
        for variable in variables:
            topic = self._topics.pop(variable, None)
            if topic is not None:
                why = f"The variable {topic.shown} was cancelled: its session ended."
                topic.abandon(Cancelled(why, variable=topic.shown))

    def fail_readers(self, session: SessionId, error: ParrotError) -> None:
        """End all reads of a session that have no outcome yet with this error, as it may never come."""
        for topic in self._topics.values():
            topic.abandon(error, session)

    def close(self, error: ParrotError) -> None:
        """End every read, present and future, with this error, unless its outcome is there."""
        self._closed = error
        for topic in self._topics.values():
            topic.abandon(error)

    def watch(self, session: SessionId) -> "Watch":
        """A new exchange of a session, which reads nothing yet."""
        return Watch(self, session)

    def attach(self, cursor: "Cursor", variable: VariableId) -> "_Topic":
        """Add a reader to a variable's topic, and return the topic."""
        topic = self._topic(variable)
        topic.cursors[cursor] = None
        cursor.error = self._closed
        return topic

    def detach(self, cursor: "Cursor") -> None:
        """Remove a reader from its topic. A topic without content and readers is dropped."""
        topic = cursor.topic
        topic.cursors.pop(cursor, None)
        bare = not (topic.cursors or topic.text or topic.outcome)
        if bare and self._topics.get(topic.variable) is topic:
            del self._topics[topic.variable]

    def _topic(self, variable: VariableId) -> "_Topic":
        topic = self._topics.get(variable)
        if topic is None:
            topic = self._topics[variable] = _Topic(variable)
        return topic


class _Topic:
    """One variable: its text so far, its outcome, and its readers."""

    __slots__ = ("cursors", "logprobs", "outcome", "shown", "text", "variable")

    def __init__(self, variable: VariableId) -> None:
        self.variable = variable
        self.shown = shown(variable)
        self.text = ""
        self.logprobs: list[tuple[int, TokenLogprob]] = []
        """Log-probabilities of streamed tokens, each with the offset in the text (characters) where its piece began."""
        self.outcome: Outcome | None = None
        self.cursors: dict[Cursor, None] = {}

    def wake(self, *, streams_only: bool = False) -> None:
        for cursor in self.cursors:
            if cursor.stream or not streams_only:
                cursor.wake()

    def abandon(self, error: ParrotError, session: SessionId | None = None) -> None:
        for cursor in self.cursors:
            if session is None or cursor.session == session:
                cursor.error = error
                cursor.wake()


class Cursor:
    """One reader's position in one variable."""

    __slots__ = ("_late", "_timer", "_told", "_watch", "error", "offset", "session", "stream", "topic")

    def __init__(self, watch: "Watch", board: Board, variable: VariableId, *, stream: bool, offset: int) -> None:
        self._watch = watch
        self._timer: asyncio.TimerHandle | None = None
        self._late: float | None = None
        """The timeout in seconds, once it has expired."""
        self.session = watch.session
        self.stream = stream
        self.offset = offset
        self.error: ParrotError | None = None
        """The error with which it ends if there is no outcome."""
        self.topic = board.attach(self, variable)
        self._told = sum(start < offset for start, _ in self.topic.logprobs)

    def wake(self) -> None:
        self._watch.wake(self)

    def expire_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, seconds)

    def _expire(self, seconds: float) -> None:
        self._late = seconds  # the error is made when it is read, since thousands may expire at once
        self.wake()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def behind(self) -> bool:
        """Whether there is something new to read."""
        ended = self.topic.outcome is not None or self.error is not None or self._late is not None
        return ended or self._text_behind

    @property
    def _text_behind(self) -> bool:
        return self.stream and (len(self.topic.text) > self.offset or len(self.topic.logprobs) > self._told)

    def read(self) -> tuple[Delta | None, Outcome | None]:
        """The new text, if this reader streams, and the outcome, if there is one."""
        topic, delta = self.topic, None
        if self._text_behind:
            delta = Delta(
                variable=topic.shown,
                offset=self.offset,
                text=topic.text[self.offset :],
                logprobs=tuple(logprob for _, logprob in topic.logprobs[self._told :]),
            )
            self.offset = max(self.offset, len(topic.text))
            self._told = len(topic.logprobs)
        error = self.error or (None if self._late is None else self._timeout(self._late))
        if topic.outcome is None and error is not None:
            return delta, Failure(variable=topic.shown, error=ErrorBody.of(error))
        return delta, topic.outcome

    def _timeout(self, seconds: float) -> GetTimeout:
        variable = self.topic.shown
        return GetTimeout(
            f"Variable {variable} was not ready within {seconds:g} s. Nothing was cancelled: ask again.",
            variable=variable,
        )


class Watch:
    """One exchange: reads several variables at once, each with its own timeout, until each has its outcome."""

    def __init__(self, board: Board, session: SessionId) -> None:
        self.session = session
        self._board = board
        self._cursors: set[Cursor] = set()
        self._changed: dict[Cursor, None] = {}
        self._wake = asyncio.Event()
        self._goes_on = False
        """Whether the last call of `news` returned only a part of what was new."""

    def read(
        self,
        variable: VariableId,
        *,
        stream: bool = False,
        offset: int = 0,
        timeout: float | None = None,
        error: ParrotError | None = None,
    ) -> None:
        """Read this variable too: its text from character `offset` on if `stream`. Ends with `GetTimeout` after
        `timeout` seconds, and at once with `error` if there is one."""
        cursor = Cursor(self, self._board, variable, stream=stream, offset=offset)
        cursor.error = error or cursor.error
        self._cursors.add(cursor)
        if timeout is not None:
            cursor.expire_in(timeout)
        if cursor.behind:
            self.wake(cursor)

    def wake(self, cursor: Cursor) -> None:
        """Note that something changed for this reader."""
        self._changed[cursor] = None
        self._wake.set()

    @property
    def reading(self) -> bool:
        """Whether some variable has not had its `Value` or `Failure` yet."""
        return bool(self._cursors)

    async def news(self) -> list[Delta | Value | Failure]:
        """Wait for news, and return it. If there is much, the rest is left to the next calls, so that other tasks can
        run in between."""
        await self._wake.wait()
        if self._goes_on:
            await asyncio.sleep(0)
        changed = list(islice(self._changed, AT_ONCE))
        for cursor in changed:
            del self._changed[cursor]
        self._goes_on = bool(self._changed)
        if not self._goes_on:
            self._wake.clear()
        news: list[Delta | Value | Failure] = []
        for cursor in changed:
            delta, outcome = cursor.read()
            if delta is not None:
                news.append(delta)
            if outcome is not None:
                self._drop(cursor)
                news.append(outcome)
        return news

    def close(self) -> None:
        """Stop reading."""
        for cursor in list(self._cursors):
            self._drop(cursor)

    def _drop(self, cursor: Cursor) -> None:
        cursor.stop()
        self._cursors.discard(cursor)
        self._changed.pop(cursor, None)
        self._board.detach(cursor)
