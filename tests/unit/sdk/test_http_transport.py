"""The HTTP transport over a scripted wire: no sockets."""

import base64
import json
import logging
import os
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from scripted_wire import (
    ACCEPTED,
    BREAK,
    OURS,
    SESSION,
    STREAM,
    URL,
    VALUE,
    VARIABLE,
    WAIT,
    Answer,
    Wired,
    events,
    refused,
)

from parrotserve.errors import (
    AlreadyProduced,
    EngineFailed,
    IncompatibleVersions,
    LimitExceeded,
    ParrotError,
    ServiceUnavailable,
    Unauthorized,
    UnknownObject,
)
from parrotserve.ids import CallId, SessionId, TenantId, VariableId
from parrotserve.listing import SessionList, SessionSummary
from parrotserve.protocol import (
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    CallOffer,
    CallResult,
    Delta,
    ErrorBody,
    Failure,
    SessionView,
    Submit,
    Value,
    VariableEvent,
    VariableSpec,
    WaitSpec,
)
from parrotserve.sdk import http_client
from parrotserve.sdk.http import HttpTransport

OTHERS = {PROTOCOL_HEADER: str(PROTOCOL_VERSION + 1)}
OTHER_VERSION = f"speaks protocol {PROTOCOL_VERSION}.*speaks {PROTOCOL_VERSION + 1}"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "FIRST_PAUSE", 0.0001)


@pytest.fixture
async def wired() -> AsyncIterator[Callable[..., tuple[HttpTransport, Wired]]]:
    opened: list[HttpTransport] = []

    def open_one(*answers: Answer, **options: object) -> tuple[HttpTransport, Wired]:
        wire = Wired(*answers)
        transport = HttpTransport(URL, wire=httpx.MockTransport(wire), **{"patience": 5, **options})  # pyright: ignore[reportArgumentType]
        opened.append(transport)
        return transport, wire

    yield open_one
    for transport in opened:
        await transport.close()


Open = Callable[..., tuple[HttpTransport, Wired]]


async def submitted(transport: HttpTransport, *waits: WaitSpec, **fields: object) -> list[VariableEvent]:
    await transport.open()
    return [event async for event in transport.submit(Submit(session=SESSION, wait=waits, **fields))]  # pyright: ignore[reportArgumentType]


class TestSubmit:
    async def test_without_waits_the_answer_is_json(self, wired: Open):
        transport, wire = wired(httpx.Response(200, headers=OURS, json=ACCEPTED.model_dump(mode="json")))
        assert await submitted(transport) == [ACCEPTED]
        (request,) = wire.asked
        assert (request.method, str(request.url)) == ("POST", f"{URL}/v1/submit")
        assert request.headers[PROTOCOL_HEADER] == str(PROTOCOL_VERSION)
        assert "Authorization" not in request.headers

    async def test_with_waits_it_is_a_stream(self, wired: Open):
        transport, wire = wired(events(ACCEPTED, b": ping\n\n", VALUE), api_key=" k\n")
        assert await submitted(transport, WAIT) == [ACCEPTED, VALUE]
        assert wire.asked[0].headers["Authorization"] == "Bearer k"

    async def test_a_broken_answer_is_asked_for_again(self, wired: Open):
        other = VariableId("v-2")
        transport, wire = wired(events(ACCEPTED, VALUE, BREAK), events(ACCEPTED, Value(variable=other, value="late")))
        answer = await submitted(transport, WAIT, WaitSpec(variable=other), variables=(VariableSpec(id="v-3"),))
        assert answer == [ACCEPTED, VALUE, Value(variable=other, value="late")]
        # The same declarations, and the waits that were still open; that for a value that came is there to compare.
        assert [len(body.variables) for body in wire.bodies] == [1, 1]
        assert [[wait.variable for wait in body.wait] for body in wire.bodies] == [["v-1", "v-2"], ["v-1", "v-2"]]

    async def test_a_text_that_breaks_off_goes_on_where_it_was(self, wired: Open):
        transport, _ = wired(
            events(ACCEPTED, Delta(variable=VARIABLE, offset=0, text="te"), BREAK),
            events(ACCEPTED, Delta(variable=VARIABLE, offset=0, text="t"), BREAK),
            events(ACCEPTED, Delta(variable=VARIABLE, offset=0, text="tex"), VALUE),
        )
        deltas = [event for event in await submitted(transport, STREAM) if isinstance(event, Delta)]
        assert [(delta.offset, delta.text) for delta in deltas] == [(0, "te"), (2, "x")]

    async def test_a_break_after_the_last_event_needs_no_further_exchange(self, wired: Open):
        transport, wire = wired(events(ACCEPTED, VALUE, BREAK))
        assert await submitted(transport, WAIT) == [ACCEPTED, VALUE]
        assert len(wire.asked) == 1

    @pytest.mark.parametrize(
        "first",
        [
            events(ACCEPTED),
            events(ACCEPTED, Failure(variable=VARIABLE, error=ErrorBody(code="service_unavailable", message="Bye."))),
            events(ACCEPTED, b'event: error\ndata: {"error": {"code": "service_unavailable", "message": "Bye."}}\n\n'),
            refused(ServiceUnavailable("Not up yet.")),
            httpx.Response(502, html="<h1>Bad gateway</h1>"),
            httpx.RemoteProtocolError("Server disconnected without sending a response."),
        ],
        ids=["an early end", "a failure", "an error", "503", "a gateway", "a disconnection"],
    )
    async def test_a_service_that_goes_away_is_asked_again(self, wired: Open, first: Answer):
        transport, _ = wired(first, events(ACCEPTED, VALUE))
        assert await submitted(transport, WAIT) == [ACCEPTED, VALUE]

    async def test_a_limit_is_waited_for_as_long_as_the_service_says(self, wired: Open, monkeypatch):
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        monkeypatch.setattr(http_client.asyncio, "sleep", sleep)
        full = LimitExceeded("Full.", limit="sessions", retry_after="20")
        transport, _ = wired(refused(full), refused(full), events(ACCEPTED, VALUE))
        assert await submitted(transport, WAIT) == [ACCEPTED, VALUE]
        assert [20 <= wait <= 22 for wait in waits] == [True, True]
        transport, wire = wired(*[refused(full)] * 10)
        with pytest.raises(LimitExceeded):
            await submitted(transport, WAIT)
        assert len(wire.asked) == 7  # six times twenty seconds are the two minutes that it takes

    async def test_patience_ends(self, wired: Open):
        transport, _ = wired(events(ACCEPTED, BREAK), *[httpx.ConnectError("refused")] * 100, patience=0.001)
        with pytest.raises(ServiceUnavailable, match=f"{URL} went away .* did not come back within 0.001 seconds"):
            await submitted(transport, WAIT)

    async def test_where_nobody_ever_answered_it_fails_at_once(self, wired: Open):
        transport, wire = wired(httpx.ConnectError("refused"))
        with pytest.raises(ServiceUnavailable, match=rf"reached at {URL} \(refused\).*`parrot serve`") as caught:
            await submitted(transport, WAIT)
        assert isinstance(caught.value.__cause__, httpx.ConnectError)
        assert len(wire.asked) == 1

    async def test_https_to_a_service_without_it_is_told_with_the_url_to_write(self):
        wire = Wired(httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"))
        transport = HttpTransport("https://host:1/v1", wire=httpx.MockTransport(wire))
        with pytest.raises(ServiceUnavailable, match=r"speaks plain HTTP: write http://host:1\.$"):
            await submitted(transport)
        await transport.close()

    async def test_refusals_keep_their_class(self, wired: Open):
        transport, _ = wired(refused(Unauthorized("No such key.", key="k")))
        with pytest.raises(Unauthorized, match="No such key") as caught:
            await submitted(transport, WAIT)
        assert caught.value.details == {"key": "k"}

    async def test_a_failure_of_a_variable_is_an_event(self, wired: Open):
        failure = Failure(variable=VARIABLE, error=ErrorBody.of(EngineFailed("It died.")))
        transport, _ = wired(events(ACCEPTED, failure))
        assert await submitted(transport, WAIT) == [ACCEPTED, failure]


class TestStrangers:
    @pytest.mark.parametrize(
        ("answer", "kind", "said"),
        [
            (httpx.Response(404, html="<h1>Not found</h1>"), ServiceUnavailable, "answered 404 but is not a Parrot"),
            (httpx.Response(200, html="<h1>Hello</h1>"), ServiceUnavailable, "answered 200 but is not a Parrot"),
            (httpx.Response(200, headers=OTHERS), IncompatibleVersions, OTHER_VERSION),
            (httpx.Response(400, headers=OTHERS), IncompatibleVersions, OTHER_VERSION),
            (httpx.Response(400, headers=OURS, text="?"), ParrotError, "answered 400 in a form"),
            (httpx.Response(200, headers=OURS, json={"event": "?"}), ServiceUnavailable, "not with the events"),
            (events(b"data: {}\n\n"), IncompatibleVersions, "does not follow this client's protocol"),
            (events(b"event: error\ndata: {}\n\n"), ServiceUnavailable, "not with the events"),
        ],
    )
    async def test_what_is_no_service_of_ours_is_told_apart(
        self, wired: Open, answer: httpx.Response, kind: type[ParrotError], said: str
    ):
        transport, _ = wired(answer)
        with pytest.raises(kind, match=said):
            await submitted(transport, WAIT)


class TestOthers:
    async def test_streams_resume_and_what_was_read_is_read_again_to_compare(self, wired: Open):
        transport, wire = wired(
            events(Delta(variable=VARIABLE, offset=1, text="e"), BREAK),
            events(Delta(variable=VARIABLE, offset=1, text="ext"), VALUE),
        )
        await transport.open()
        seen = [event async for event in transport.stream(SESSION, VARIABLE, 1)]
        assert seen == [
            Delta(variable=VARIABLE, offset=1, text="e"),
            Delta(variable=VARIABLE, offset=2, text="xt"),
            VALUE,
        ]
        assert [request.headers["Last-Event-ID"] for request in wire.asked] == ["1", "1"]
        assert wire.asked[0].url.path == "/v1/sessions/s-1/variables/v-1/stream"

    async def test_each_thing_has_its_route(self, wired: Open):
        done = [httpx.Response(204, headers=OURS) for _ in range(5)]
        done[3] = httpx.Response(200, headers=OURS, json={"state": "done"})
        transport, wire = wired(*done)
        await transport.open()
        await transport.set_value(SESSION, VARIABLE, "x")
        await transport.retry(SESSION, VARIABLE)
        await transport.cancel(SESSION, VARIABLE)
        told = await transport.put_result(SESSION, CallId("c-1"), CallResult(value="y"), attempt=2)
        assert told.state == "done"
        await transport.end_session(SESSION)
        assert [(request.method, request.url.path) for request in wire.asked] == [
            ("PUT", "/v1/sessions/s-1/variables/v-1"),
            ("POST", "/v1/sessions/s-1/variables/v-1/retry"),
            ("DELETE", "/v1/sessions/s-1/variables/v-1"),
            ("PUT", "/v1/sessions/s-1/calls/c-1"),
            ("DELETE", "/v1/sessions/s-1"),
        ]
        assert [request.url.query for request in wire.asked] == [b"", b"", b"", b"attempt=2", b""]
        assert json.loads(wire.asked[0].content) == {"value": "x"}
        assert json.loads(wire.asked[3].content) == {"value": "y", "error": None}

    async def test_views_are_read(self, wired: Open):
        view = SessionView(id=SESSION, lease_seconds=30, variables=(), requests=(), calls=())
        transport, _ = wired(httpx.Response(200, headers=OURS, json=view.model_dump(mode="json")))
        await transport.open()
        assert await transport.session_view(SESSION) == view

    async def test_all_pages_of_the_list_of_sessions_are_read(self, wired: Open):
        some = [
            SessionSummary(
                id=SessionId(f"s-{n}"), tenant=TenantId("a&b"), opened=1, last_used=2, lease_seconds=30, exchanges=0,
                variables=1, requests={"done": 1}, calls={},
            )
            for n in range(3)
        ]  # fmt: skip
        pages = (SessionList(data=tuple(some[:2]), next=7), SessionList(data=tuple(some[2:]), next=None))
        answers = [httpx.Response(200, headers=OURS, json=page.model_dump(mode="json")) for page in pages]
        transport, wire = wired(*answers)
        await transport.open()
        assert await transport.sessions(TenantId("a&b")) == some
        assert [dict(request.url.params) for request in wire.asked] == [
            {"limit": "1000", "tenant": "a&b", "after": "0"},
            {"limit": "1000", "tenant": "a&b", "after": "7"},
        ]
        assert wire.asked[0].url.path == "/v1/sessions"

    @pytest.mark.parametrize("name", ["a\nb", "../../healthz", "a?b#c", "é", "\udce9"])
    async def test_a_session_that_somebody_mistyped_stays_the_name_of_a_session(self, wired: Open, name: str):
        transport, wire = wired(refused(UnknownObject("No such session.")))
        await transport.open()
        with pytest.raises(UnknownObject):
            await transport.session_view(SessionId(name))
        path = wire.asked[0].url.raw_path.decode()
        assert path.startswith("/v1/sessions/")
        assert not set("/?#") & set(path.removeprefix("/v1/sessions/"))

    async def test_a_name_of_a_session_that_is_longer_than_any_url(self, wired: Open):
        transport, _ = wired()
        await transport.open()
        with pytest.raises(ServiceUnavailable, match="too long"):
            await transport.session_view(SessionId("s" * 100_000))

    async def test_refusals_of_a_set(self, wired: Open):
        transport, _ = wired(refused(AlreadyProduced("It has a value.")))
        await transport.open()
        with pytest.raises(AlreadyProduced):
            await transport.set_value(SESSION, VARIABLE, "x")

    async def test_ending_what_has_ended_is_fine(self, wired: Open):
        transport, wire = wired(refused(UnknownObject("No such session.")))
        await transport.open()
        await transport.end_session(SESSION)
        assert len(wire.asked) == 1

    async def test_offers_go_on_after_a_break_until_the_session_has_ended(self, wired: Open):
        offers = [CallOffer(id=CallId(f"c-{n}"), function="f", inputs=()) for n in range(2)]
        transport, _ = wired(events(offers[0], BREAK), events(offers[1]), refused(UnknownObject("No such session.")))
        await transport.open()
        assert [offer async for offer in transport.calls(SESSION)] == offers

    async def test_offers_of_an_unknown_session_are_refused(self, wired: Open):
        transport, _ = wired(refused(UnknownObject("No such session.")))
        await transport.open()
        with pytest.raises(UnknownObject):
            _ = [offer async for offer in transport.calls(SESSION)]

    async def test_a_closed_transport_says_so(self, wired: Open):
        transport, _ = wired()
        with pytest.raises(ServiceUnavailable, match="is closed"):
            await submitted_without_opening(transport)

    @pytest.mark.parametrize(
        ("setting", "value", "says"),
        [
            ("SSL_CERT_FILE", "/nope", "certificates of SSL_CERT_FILE"),
            ("all_proxy", "socks5://127.0.0.1:1", "all_proxy is a SOCKS proxy.*httpx\\[socks\\]"),
            ("HTTPS_PROXY", "gopher://user:secret@host", "proxy settings of HTTPS_PROXY"),
            ("NO_PROXY", "[::", "proxy settings of NO_PROXY"),
        ],
    )
    async def test_settings_that_no_client_can_use_are_named(
        self, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, says: str
    ):
        for name in [name for name in os.environ if name.upper().endswith("_PROXY") or name.startswith("SSL")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv(setting, value)
        with pytest.raises(ServiceUnavailable, match=says) as failed:
            await HttpTransport(URL).open()
        assert "secret" not in failed.value.message

    async def test_a_password_in_the_url_is_sent_and_written_nowhere(self, caplog: pytest.LogCaptureFixture):
        wire = Wired(
            httpx.Response(204, headers=OURS), httpx.ConnectError("refused"), httpx.Response(200, text="a page")
        )
        url = URL.replace("//", "//user:s%40cret@")
        with caplog.at_level(logging.DEBUG):
            transport = HttpTransport(url, patience=0, wire=httpx.MockTransport(wire))
            await transport.open()
            await transport.cancel(SESSION, VARIABLE)
            told: list[ParrotError] = []
            for _ in range(2):
                with pytest.raises(ServiceUnavailable, match=URL) as failed:
                    await transport.session_view(SESSION)
                told.append(failed.value)
            await transport.close()
        assert f"{URL}/v1/sessions" in caplog.text
        assert "cret" not in f"{caplog.text} {[(each.message, each.details) for each in told]}"
        sent = "Basic " + base64.b64encode(b"user:s@cret").decode()
        assert {request.headers["Authorization"] for request in wire.asked} == {sent}

    async def test_every_exchange_takes_the_injected_delay(self, wired: Open, monkeypatch: pytest.MonkeyPatch):
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        monkeypatch.setattr(http_client.asyncio, "sleep", sleep)
        transport, _ = wired(events(ACCEPTED, VALUE), httpx.Response(204, headers=OURS), delay=0.25)
        await submitted(transport, WAIT)
        await transport.cancel(SESSION, VARIABLE)
        assert slept == [0.25, 0.25]


async def submitted_without_opening(transport: HttpTransport) -> list[VariableEvent]:
    return [event async for event in transport.submit(Submit(session=SESSION))]
