"""Who gets in: every route, with no key, a revoked one, another tenant's; changes made by commands count at once."""

import contextlib
import re
import sqlite3

import httpx
from tenants_here import key_of, routes

from parrotserve.server.access import OPEN_PATHS
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits

OUTPUT = [{"kind": "text", "text": "tell"}, {"kind": "output", "variable": "tale"}]
PROGRAM = {
    "session": "a-session",
    "variables": [{"id": "tale"}],
    "requests": [{"id": "telling", "function": "Tell", "segments": OUTPUT}],
}


def assert_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] in {"unauthorized", "invalid_api_key"}  # the latter in OpenAI's words
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_every_route_but_health_is_refused_without_a_key_and_with_a_revoked_one(store, directory, served):
    headers = key_of(store, "ann")
    client = await served(directory=directory)
    store.revoke_key(headers["Authorization"].removeprefix("Bearer "))
    bad = [{}, headers, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer ü"}]
    for method, path in [*routes(client), ("GET", "/nothing/here"), ("OPTIONS", "/v1/models")]:
        for sent in bad:
            raw = {name: value.encode("latin-1") for name, value in sent.items()}
            answer = await client.request(method, path, headers=raw)
            if path in OPEN_PATHS:
                assert answer.status_code == 200
            else:
                assert_refused(answer)


async def test_what_is_anothers_looks_like_what_is_not_there(store, directory, served):
    ann, bob = key_of(store, "ann"), key_of(store, "bob")
    client = await served(directory=directory)
    assert (await client.post("/v1/submit", json=PROGRAM, headers=ann)).status_code == 200
    seen = 0
    for method, path in routes(client):
        if "a-session" not in path:
            continue
        seen += 1
        json = {"value": "mine now"} if method == "PUT" else None
        foreign = await client.request(method, path, json=json, headers=bob)
        absent = await client.request(method, path.replace("a-session", "no-session"), json=json, headers=bob)
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace("a-session", "no-session") == absent.text
    assert seen >= 8
    tale = await client.get("/v1/sessions/a-session/variables/tale", headers=ann)
    assert tale.json()["value"] == "a tale 🦘 of some length"


async def test_what_is_of_all_tenants_is_for_operators(store, directory, served):
    ann, operator = key_of(store, "ann"), key_of(store, "ann", operator=True)
    client = await served(directory=directory)
    for path in ("/metrics", "/v1/engines"):
        answer = await client.get(path, headers=ann)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert "WWW-Authenticate" not in answer.headers, "another key of the same kind would not help"
        assert (await client.get(path, headers=operator)).status_code == 200
    for path in ("/v1/models", "/docs", "/openapi.json"):
        assert (await client.get(path, headers=ann)).status_code == 200


async def test_commands_change_a_running_service(store, directory, served):
    client = await served(directory=directory)
    assert (await client.get("/v1/models")).status_code == 200  # open: nobody has made a key
    headers = key_of(store, "bob")
    assert_refused(await client.get("/v1/models"))
    assert (await client.get("/v1/models", headers=headers)).status_code == 200
    store.revoke_key(store.keys()[0].id)
    assert_refused(await client.get("/v1/models", headers=headers))
    assert_refused(await client.get("/v1/models"))  # closed for good


async def test_keys_can_be_asked_for_from_the_start_and_never(served, store):
    client = await served(directory=Directory(store, always=True))
    assert_refused(await client.get("/v1/models"))
    headers = key_of(store, "ann")
    client = await served(directory=Directory(store, never=True))
    for sent in ({}, headers):
        assert (await client.get("/v1/models", headers=sent)).status_code == 200


async def test_a_page_that_rebinds_its_name_gets_nothing_of_an_open_service(store, directory, served):
    client = await served(directory=directory)
    page = {"Host": "attacker.example:8127", "Origin": "http://attacker.example:8127"}
    for method, path in [*routes(client), ("GET", "/nothing/here")]:
        answer = await client.request(method, path, headers=page)
        if path in OPEN_PATHS:
            assert answer.status_code == 200
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert (await client.post("/v1/submit", json=PROGRAM, headers=page)).status_code == 403
    assert (await client.get("/v1/sessions/a-session")).status_code == 404
    headers = key_of(store, "bob")
    assert (await client.get("/v1/models", headers=page | headers)).status_code == 200  # no page has the key


async def test_the_address_itself_leads_to_the_page_of_documents(served):
    client = await served()
    answer = await client.get("/", follow_redirects=True)
    assert (answer.url.path, answer.status_code) == ("/docs", 200)


async def test_the_page_of_documents_needs_nothing_from_elsewhere(served):
    client = await served()
    page = await client.get("/docs")
    assert "/v1/submit" in page.text
    assert "WireSegment" in page.text or "RequestSpec" in page.text
    assert "<code>wait</code>" in page.text
    assert "`" not in page.text.partition("<h2>Schemas")[0]
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"' )]*)""", page.text)
    assert [link for link in links if not link.startswith(("#", "openapi.json"))] == []
    assert "<script" not in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    names = (await client.get("/openapi.json")).json()["paths"]
    assert [path for path in names if path not in page.text] == []


async def test_usage_is_told_by_tenant_session_and_request(store, directory, served):
    ann, bob, operator = key_of(store, "ann"), key_of(store, "bob"), key_of(store, "bob", operator=True)
    client = await served(directory=directory)
    await client.post("/v1/submit", json=PROGRAM, headers=ann)
    await client.get("/v1/sessions/a-session/variables/tale", headers=ann)
    while True:
        session = (await client.get("/v1/sessions/a-session", headers=ann)).json()
        if session["requests"][0]["state"] == "done":
            break
    assert session["usage"] == session["requests"][0]["usage"]
    assert session["usage"]["output_tokens"] > 10
    (row,) = (await client.get("/v1/usage", headers=ann)).json()
    assert (row["tenant"], row["requests"]) == ("ann", 1)
    assert row["output_tokens"] == session["usage"]["output_tokens"]
    assert (await client.get("/v1/usage", headers=bob)).json() == []
    assert (await client.get("/v1/usage", headers=operator)).json() == [row]
    metrics = (await client.get("/metrics", headers=operator)).text
    assert 'parrot_tokens_total{kind="output",tenant="ann"}' in metrics
    (stored,) = store.usage("ann")
    assert stored[2].output_tokens == row["output_tokens"]


async def test_a_refusal_says_when_to_try_again_and_bodies_have_a_tenants_limit(store, directory, served):
    ann = key_of(store, "ann")
    client = await served(directory=directory)
    store.set_limits("ann", Limits(requests_in_flight=1, sessions=1, body_bytes=2000))
    await client.post("/v1/submit", json={"session": "open"}, headers=ann)
    answer = await client.post("/v1/submit", json=PROGRAM, headers=ann)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"]["details"]["limit"] == "sessions"
    answer = await client.post("/v1/submit", json=PROGRAM | {"session": "x" * 2000}, headers=ann)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


async def test_while_the_tenants_cannot_be_read_nobody_gets_in_by_what_was_known_before(store, directory, served):
    ann = key_of(store, "ann")
    client = await served(directory=directory)
    assert (await client.get("/v1/models", headers=ann)).status_code == 200
    with contextlib.closing(sqlite3.connect(store.path)) as elsewhere:
        elsewhere.execute("ALTER TABLE keys RENAME TO lost")
        for path in ("/v1/usage", "/v1/usage", "/v1/models"):
            answer = await client.get(path, headers=ann)
            assert answer.status_code == 503
            assert "cannot be looked up now" in answer.text
            assert str(store.path) not in answer.text
        elsewhere.execute("ALTER TABLE lost RENAME TO keys")
    assert (await client.get("/v1/models", headers=ann)).status_code == 200
