"""A transport to a service behind a URL: JSON both ways, server-sent events for what takes time."""

import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from urllib.parse import quote, urlencode

import httpx
from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter, ValidationError

from parrotserve.errors import IncompatibleVersions, ServiceUnavailable, UnknownObject
from parrotserve.ids import CallId, SessionId, TenantId, VariableId
from parrotserve.listing import SessionList, SessionSummary
from parrotserve.protocol import (
    Accepted,
    CallOffer,
    CallResult,
    CallState,
    Delta,
    Failure,
    SessionView,
    SetValue,
    Submit,
    Value,
    VariableEvent,
    WaitSpec,
)
from parrotserve.sdk.http_client import SILENCE_SECONDS, HttpClient, ended_early
from parrotserve.sdk.lost import contradicted, forgotten

PATIENCE_SECONDS = 60.0
SESSIONS_ASKED = 1000
"""Sessions per page of the list: the most that the service allows."""

_EVENTS: TypeAdapter[VariableEvent] = TypeAdapter(VariableEvent)


class HttpTransport:
    """Implements `Transport` over HTTP.

    An answer that breaks off is asked for again, and streams go on where they broke. Callers only notice if the service
    stays away for `patience` seconds, or accepts a connection and sends nothing for `silence` seconds: then they get
    `ServiceUnavailable`. A restarted service may produce anew what is sent again: if that differs from what callers
    have read, or the service no longer has the session, they get `SessionLost`. `delay` adds so many seconds to every
    HTTP exchange, standing for a network's round trip in measurements. `wire` replaces the network in tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        delay: float = 0.0,
        patience: float = PATIENCE_SECONDS,
        silence: float = SILENCE_SECONDS,
        wire: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = HttpClient(url, api_key=api_key, delay=delay, patience=patience, silence=silence, wire=wire)

    def __repr__(self) -> str:
        return f"HttpTransport({self._client.url!r})"

    async def open(self) -> None:
        """Make the connection pool; nothing is sent before the first exchange."""
        self._client.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def submit(self, body: Submit) -> AsyncGenerator[VariableEvent, None]:
        """See `Transport.submit`."""
        answer = _Answer(body, self._client.url)
        async with contextlib.aclosing(self._client.resumed(lambda: self._submit(answer))) as events:
            async for event in events:
                yield event

    async def stream(
        self, session: SessionId, variable: VariableId, offset: int
    ) -> AsyncGenerator[VariableEvent, None]:
        """See `Transport.stream`."""
        path = f"{_variable(session, variable)}/stream"
        body = Submit(session=session, wait=(WaitSpec(variable=variable, stream=True),))
        answer = _Answer(body, self._client.url, start=offset)

        async def attempt() -> AsyncGenerator[VariableEvent, None]:
            # Always from the same offset, so that text that comes again can be compared with what came before.
            async for event in answer.read(self._client.events("GET", path, last_event_id=offset)):
                yield event

        async with contextlib.aclosing(self._client.resumed(attempt)) as events:
            async for event in events:
                yield event

    async def set_value(self, session: SessionId, variable: VariableId, value: str) -> None:
        """See `Transport.set_value`."""
        path = _variable(session, variable)
        await self._client.repeated(lambda: self._client.call("PUT", path, SetValue(value=value)))

    async def retry(self, session: SessionId, variable: VariableId) -> None:
        """See `Transport.retry`."""
        path = f"{_variable(session, variable)}/retry"
        await self._client.repeated(lambda: self._client.call("POST", path))

    async def cancel(self, session: SessionId, variable: VariableId) -> None:
        """See `Transport.cancel`."""
        path = _variable(session, variable)
        await self._client.repeated(lambda: self._client.call("DELETE", path))

    async def end_session(self, session: SessionId) -> None:
        """See `Transport.end_session`. A session that has ended already is fine."""
        with contextlib.suppress(UnknownObject):
            await self._client.repeated(lambda: self._client.call("DELETE", _session(session)))

    async def session_view(self, session: SessionId) -> SessionView:
        """See `Transport.session_view`."""
        response = await self._client.repeated(lambda: self._client.call("GET", _session(session)))
        with _understood():
            return SessionView.model_validate_json(response.content)

    async def sessions(self, tenant: TenantId | None = None) -> list[SessionSummary]:
        """The live sessions of this tenant, or all that the key may see. Not part of `Transport`, because programs do
        not need it. Raises `Forbidden` if the key may not see this tenant's."""
        found: list[SessionSummary] = []
        query = {"limit": str(SESSIONS_ASKED)} | ({} if tenant is None else {"tenant": tenant})
        after: int | None = 0
        while after is not None:
            path = f"/v1/sessions?{urlencode(query | {'after': str(after)})}"
            response = await self._client.repeated(partial(self._client.call, "GET", path))
            with _understood():
                page = SessionList.model_validate_json(response.content)
            found += page.data
            after = page.next
        return found

    async def calls(self, session: SessionId) -> AsyncGenerator[CallOffer, None]:
        """See `Transport.calls`."""
        path = f"{_session(session)}/calls"

        async def attempt() -> AsyncGenerator[CallOffer, None]:
            async for event in self._client.events("GET", path):
                with _understood():
                    offer = CallOffer.model_validate_json(event.data)
                yield offer
            # The next attempt will show whether the session has ended or the service is stopping.
            raise ended_early()

        heard = False
        try:
            async with contextlib.aclosing(self._client.resumed(attempt)) as offers:
                async for offer in offers:
                    heard = True
                    yield offer
        except UnknownObject:
            if not heard:
                raise

    async def put_result(
        self, session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None
    ) -> CallState:
        """See `Transport.put_result`."""
        path = f"{_session(session)}/calls/{call}" + ("" if attempt is None else f"?attempt={attempt}")
        response = await self._client.repeated(lambda: self._client.call("PUT", path, result))
        with _understood():
            return CallState.model_validate_json(response.content)

    async def _submit(self, answer: "_Answer") -> AsyncGenerator[VariableEvent, None]:
        """One attempt: sends all declarations and the waits that `_Answer.body` gives, and yields what is new."""
        body = answer.body()
        if not body.wait:
            if not answer.accepted:
                response = await self._client.call("POST", "/v1/submit", body)
                answer.accepted = True
                with _understood():
                    accepted = Accepted.model_validate_json(response.content)
                yield accepted
            return
        async for event in answer.read(self._client.events("POST", "/v1/submit", body)):
            yield event


class _Answer:
    """What has arrived of the answer to a submit, over all attempts. Texts begin at character `start`."""

    def __init__(self, body: Submit, url: str, *, start: int = 0) -> None:
        self._body = body
        self._url = url
        self._start = start
        self._open = {wait.variable: wait for wait in body.wait}
        self._answered: dict[str, WaitSpec] = {}
        """Waits whose values were handed on to the caller."""
        self._texts: dict[str, str] = {}
        """The texts that were handed on: values, and what has been streamed so far."""
        self._begun = False
        self.accepted = False

    def body(self) -> Submit:
        """The submit to send now. Declarations are sent again: those that the service knows already change nothing.

        Values that came are asked for again, and first, because a restarted service produces them anew: nothing that
        depends on a different one may be handed on.
        """
        wait = (*self._answered.values(), *self._open.values()) if self._open else ()
        return self._body.model_copy(update={"wait": wait})

    async def read(self, events: AsyncGenerator[ServerSentEvent, None]) -> AsyncGenerator[VariableEvent, None]:
        """The events of one attempt that are new to the caller. Raises `ended_early` if they end before all waits are
        answered, and `SessionLost` if they contradict earlier ones."""
        compared = bool(self._answered)
        try:
            async with contextlib.aclosing(events) as sent:
                async for each in sent:
                    with _understood():
                        event = _EVENTS.validate_json(each.data)
                    news = self._news(event)
                    self._begun = True
                    if news is not None:
                        yield news
                    if compared and not self._open:
                        return
        except UnknownObject as error:
            if self._begun:
                raise forgotten(self._body.session, self._url) from error
            raise
        if self._open:
            raise ended_early()

    def _news(self, event: VariableEvent) -> VariableEvent | None:
        match event:
            case Accepted():
                known, self.accepted = self.accepted, True
                return None if known else event
            case Delta(variable=variable, offset=offset, text=text):
                held = self._texts.get(variable, "")
                known = held[offset - self._start :]
                self._compare(variable, text[: len(known)], known[: len(text)])
                fresh = text[len(known) :]
                self._texts[variable] = held + fresh
                return Delta(variable=variable, offset=offset + len(known), text=fresh) if fresh else None
            case Failure(error=error) if error.code == ServiceUnavailable.code:
                # This is about the service, which is going away, and not about the variable.
                raise ended_early(error.message.rstrip("."))
            case Value(variable=variable, value=value):
                held, text = self._texts.get(variable, ""), value[self._start :]
                self._compare(variable, text if variable in self._answered else text[: len(held)], held)
                self._texts[variable] = text
                return event if self._closed(variable, answered=True) else None
            case Failure(variable=variable):
                return event if self._closed(variable, answered=False) else None

    def _compare(self, variable: str, theirs: str, ours: str) -> None:
        """Raise `SessionLost` if a text is not the one that was handed on."""
        if theirs != ours:
            names = {spec.id: spec.name for spec in self._body.variables}
            raise contradicted(names.get(variable) or variable, self._url)

    def _closed(self, variable: str, *, answered: bool) -> bool:
        """Close a wait. Returns whether it was open until now."""
        wait = self._open.pop(variable, None)
        if wait is not None and answered:
            self._answered[variable] = wait.model_copy(update={"stream": False, "timeout": None})
        return wait is not None


def _session(session: SessionId) -> str:
    # Quoted, because people may name a session, too.
    return f"/v1/sessions/{quote(session, safe='', errors='replace')}"


def _variable(session: SessionId, variable: VariableId) -> str:
    return f"{_session(session)}/variables/{variable}"


@contextlib.contextmanager
def _understood():
    """Raise `IncompatibleVersions` if an answer that is validated in the block does not follow this protocol."""
    try:
        yield
    except ValidationError as error:
        raise IncompatibleVersions(
            "The service's answer does not follow this client's protocol; install the same version of parrotserve on "
            f"both sides: {error}."
        ) from error
