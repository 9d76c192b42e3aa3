"""HTTP exchanges with a service: sends and checks them, translates errors, and repeats those that break.

Whatever httpx raises becomes an error of `parrotserve.errors` here. An exchange that breaks is repeated for as long
as its patience lasts, provided that the service has been reached: if nobody ever answered, the URL is wrong or
nothing runs there, and waiting would only hide that.
"""

import asyncio
import contextlib
import ipaddress
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from parrotserve.addresses import without_credentials
from parrotserve.client_environment import environment_read
from parrotserve.errors import DeclarationError, IncompatibleVersions, LimitExceeded, ParrotError, ServiceUnavailable
from parrotserve.protocol import PROTOCOL_HEADER, PROTOCOL_VERSION, ErrorAnswer, Wire
from parrotserve.service_address import plain_http_advice, service_key, service_url

T = TypeVar("T")

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 45.0
"""After so long without a byte a connection counts as dead; a service that streams sends at least every 15 seconds."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
LIMIT_PATIENCE = 120.0
"""Seconds of waiting, as the service asks, that an exchange may spend on limits."""
GATEWAY_ERRORS = frozenset({502, 503, 504})


class _Broken(Exception):
    """An exchange ended before its answer did."""

    def __init__(self, what: str, *, reached: bool = True, later: LimitExceeded | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.later = later
        """The refusal, if the service said when to try again."""
        self.reached = reached
        """Whether the connection was accepted."""


def ended_early(why: str = "the answer ended early") -> Exception:
    """The exception to raise within `resumed` if an answer ended in good order but was not complete."""
    return _Broken(why)


class HttpClient:
    """Speaks Parrot's protocol with one URL.

    `delay`: seconds of waiting before every exchange, which stand for a network's round trip in measurements.
    `patience`: seconds that a broken exchange is tried again. `silence`: seconds without a byte after which an exchange
    counts as broken. `wire` replaces the network in tests. A user and password in the URL are sent, and shown nowhere.
    Raises `ServiceUnavailable` if `url` is not a URL, and `DeclarationError` if `api_key` cannot be a key.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        delay: float,
        patience: float,
        silence: float,
        wire: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        given = service_url(url)
        self.url = without_credentials(given)
        # Taken out of the URL, because the HTTP client logs the URLs of requests.
        whose = httpx.URL(given)
        self._auth = httpx.BasicAuth(whose.username, whose.password) if whose.userinfo else None
        self._headers = {PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
        if key := service_key(api_key or ""):
            self._headers["Authorization"] = f"Bearer {key}"
        self._delay = delay
        self._patience = patience
        self._silence = silence
        self._wire = wire
        self._client: httpx.AsyncClient | None = None
        self._reached = False

    def open(self) -> None:
        """Make the connection pool; nothing is sent. Raises `ServiceUnavailable` if the environment names invalid
        proxies or certificates."""
        with environment_read(ServiceUnavailable):
            self._client = httpx.AsyncClient(
                base_url=self.url,
                headers=self._headers,
                auth=self._auth,
                timeout=httpx.Timeout(self._silence, connect=CONNECT_SECONDS, pool=None),
                # Every thread that waits holds a connection, so with a limit a program could deadlock itself.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
                transport=self._wire,
                # A proxy named by the environment does not lead back to this machine.
                trust_env=not _is_loopback(self.url),
            )

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def call(self, method: str, path: str, body: Wire | None = None) -> httpx.Response:
        """One exchange with a whole answer; not repeated. Raises the service's refusal."""
        async with self._exchange(method, path, body, {}) as response:
            return response

    async def events(
        self, method: str, path: str, body: Wire | None = None, *, last_event_id: int | None = None
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """One exchange answered by an event stream; an `error` event is raised."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = str(last_event_id)
        async with self._exchange(method, path, body, headers) as response:
            try:
                async for event in EventSource(response).aiter_sse():
                    if event.event == "error":
                        raise _told(event.data)
                    yield event
            except (SSEError, ValidationError) as error:
                raise self._stranger("answers, but not with the events of a Parrot service") from error

    async def repeated(self, exchange: Callable[[], Awaitable[T]]) -> T:
        """The result of an exchange, repeated for as long as patience lasts; making it twice must do no harm."""

        async def attempt() -> AsyncGenerator[T, None]:
            yield await exchange()

        async with contextlib.aclosing(self.resumed(attempt)) as results:
            return await anext(results)

    async def resumed(self, attempt: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """What the attempts yield, one after another, until one ends by itself.

        When one breaks, the next follows after a pause. Pauses double from 0.1 to 2 seconds, shortened at random by up
        to half, so that not all clients return at once. Raises `ServiceUnavailable` if nothing came for `patience`
        seconds, and `LimitExceeded` if a limit would still hold after `LIMIT_PATIENCE` seconds of waiting.
        """
        pause, since = FIRST_PAUSE, time.monotonic()
        allowed = LIMIT_PATIENCE
        while True:
            try:
                async with contextlib.aclosing(attempt()) as items:
                    async for item in items:
                        pause, since = FIRST_PAUSE, time.monotonic()
                        yield item
                return
            except _Broken as broken:
                if broken.later is not None:
                    wait = float(broken.later.details["retry_after"])
                    allowed -= wait
                    if allowed < 0:
                        raise broken.later from None
                    await asyncio.sleep(wait * random.uniform(1.0, 1.1))
                    since = time.monotonic()
                    continue
                if not (broken.reached or self._reached):
                    raise self._unreachable(broken) from _bare(broken.__cause__)
                if time.monotonic() + pause > since + self._patience:
                    raise (self._gone(broken) if self._reached else self._mute(broken)) from _bare(broken.__cause__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    @contextlib.asynccontextmanager
    async def _exchange(
        self, method: str, path: str, body: Wire | None, headers: dict[str, str]
    ) -> AsyncGenerator[httpx.Response, None]:
        """One exchange. Checks the head of the answer and reads its body, but leaves an event stream to the caller."""
        if self._client is None:
            raise ServiceUnavailable(f"The connection to {self.url} is closed.")
        content = None
        if body is not None:
            content = _as_json(body)
            headers = {**headers, "Content-Type": "application/json"}
        try:
            if self._delay:
                await asyncio.sleep(self._delay)
            async with self._client.stream(method, path, content=content, headers=headers) as response:
                if not _is_event_stream(response):
                    await response.aread()
                self._check(response)
                self._reached = True
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Broken(str(error) or type(error).__name__, reached=False) from error
        except httpx.ReadTimeout as error:
            raise _Broken(f"it said nothing for {self._silence:g} seconds") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise _Broken(str(error) or type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnavailable(f"{self.url}: {error or type(error).__name__}", url=self.url) from error

    def _check(self, response: httpx.Response) -> None:
        """Raise the service's refusal, or an error that says that it is not a Parrot service of this version."""
        theirs = response.headers.get(PROTOCOL_HEADER)
        if theirs is None:
            if response.status_code in GATEWAY_ERRORS:
                raise _Broken(f"a gateway answered {response.status_code}")
            raise self._stranger(f"answered {response.status_code} but is not a Parrot service")
        if response.is_success:
            if theirs != str(PROTOCOL_VERSION):
                raise self._incompatible(theirs)
            return
        try:
            raise _told(response.content)
        except ValidationError as error:
            if theirs != str(PROTOCOL_VERSION):
                raise self._incompatible(theirs) from error
            message = f"{self.url} answered {response.status_code} in a form that this version does not know."
            raise ParrotError(message, url=self.url) from error

    def _incompatible(self, theirs: str) -> IncompatibleVersions:
        return IncompatibleVersions(
            f"This client speaks protocol {PROTOCOL_VERSION}, the service at {self.url} speaks {theirs}: install the "
            "same version of parrotserve on both sides."
        )

    def _stranger(self, what: str) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"The server at {self.url} {what}. Check the URL: `parrot serve` prints the right one.", url=self.url
        )

    def _mute(self, broken: _Broken) -> ServiceUnavailable:
        return self._stranger(f"takes connections, but has never answered as a Parrot service does ({broken.what})")

    def _unreachable(self, broken: _Broken) -> ServiceUnavailable:
        usual = "Check the URL, or start a service there with `parrot serve`."
        advice = plain_http_advice(self.url, broken.what) or usual
        return ServiceUnavailable(f"No service can be reached at {self.url} ({broken.what}). {advice}", url=self.url)

    def _gone(self, broken: _Broken) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"The service at {self.url} went away ({broken.what}) and did not come back within {self._patience:g} "
            "seconds. Nothing was cancelled: once it is back, call get() again.",
            url=self.url,
        )


def _bare(error: BaseException | None) -> BaseException | None:
    """A network error without its tracebacks, which show a hundred lines of HTTP clients."""
    each = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _as_json(body: Wire) -> str:
    """The body as JSON. Raises `DeclarationError` for texts that JSON cannot carry, as an embedded service does."""
    try:
        return body.model_dump_json()
    except PydanticSerializationError as error:
        raise DeclarationError(
            f"A text to send is not valid Unicode: it has a lone surrogate ({error}). Such texts come from decoding "
            "with errors='surrogateescape'; decode with errors='replace' instead."
        ) from error


def _told(answer: str | bytes) -> Exception:
    """The error that the service reports; `_Broken` if trying again may help: the service is stopping, is not up yet,
    or says when to come back."""
    error = ErrorAnswer.model_validate_json(answer).error.to_error()
    if isinstance(error, LimitExceeded) and "retry_after" in error.details:
        return _Broken(error.message.rstrip("."), later=error)
    return _Broken(error.message.rstrip(".")) if isinstance(error, ServiceUnavailable) else error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_event_stream(response: httpx.Response) -> bool:
    return response.is_success and response.headers.get("content-type", "").startswith("text/event-stream")
