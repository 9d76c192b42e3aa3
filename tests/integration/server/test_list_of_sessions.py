"""Which sessions there are, as who runs a service sees them."""

import time
from typing import Any

import httpx
import pytest
from tenants_here import key_of

LIST = "/v1/sessions"


def program(session: str, requests: int = 1, **more: Any) -> dict[str, Any]:
    """Independent requests of ids of their own."""
    names = [f"{session}.{number}" for number in range(requests)]
    return {
        "session": session,
        "variables": [{"id": f"v-{name}"} for name in names],
        "requests": [
            {"id": name, "segments": [{"kind": "text", "text": "tell"}, {"kind": "output", "variable": f"v-{name}"}]}
            for name in names
        ],
        **more,
    }


async def names(client: httpx.AsyncClient, headers: dict[str, str] | None = None, **query: Any) -> list[str]:
    answer = await client.get(LIST, params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"]]


async def test_a_session_is_told_with_what_it_has(served):
    client = await served()
    before = time.time()
    calls = [{"id": "c", "function": "f", "inputs": [], "output": "out"}]
    body = program("s", 2, calls=calls, lease_seconds=50, wait=[{"variable": "v-s.0"}, {"variable": "v-s.1"}])
    body["variables"].append({"id": "out"})
    assert (await client.post("/v1/submit", json=body)).status_code == 200
    (one,) = (await client.get(LIST)).json()["data"]
    opened, used = one.pop("opened"), one.pop("last_used")
    assert before - 1 <= opened <= used <= time.time() + 1
    assert one == {
        "id": "s",
        "tenant": "local",
        "lease_seconds": 50.0,
        "exchanges": 0,
        "variables": 3,
        "requests": {"done": 2},
        "calls": {"offered": 1},
    }
    assert (await client.put("/v1/sessions/s/calls/c", json={"error": "no"})).json() == {"state": "failed"}
    (one,) = (await client.get(LIST)).json()["data"]
    assert one["calls"] == {"failed": 1}
    assert (await client.post("/v1/sessions/s/variables/out/retry")).status_code == 204
    (one,) = (await client.get(LIST)).json()["data"]
    assert one["calls"] == {"offered": 1}


async def test_pages_follow_one_another_whatever_ends_in_between(served):
    client = await served(ticking=True)
    for number in range(7):
        await client.post("/v1/submit", json=program(f"s{number}"))
    first = (await client.get(LIST, params={"limit": 3})).json()
    assert [one["id"] for one in first["data"]] == ["s0", "s1", "s2"]
    assert first["data"][0]["requests"] in ({"queued": 1}, {"running": 1})
    for gone in ("s1", "s2", "s4"):
        await client.delete(f"{LIST}/{gone}")
    await client.post("/v1/submit", json=program("s1"))  # another session by the same name
    second = (await client.get(LIST, params={"limit": 3, "after": first["next"]})).json()
    assert [one["id"] for one in second["data"]] == ["s3", "s5", "s6"]
    last = (await client.get(LIST, params={"limit": 3, "after": second["next"]})).json()
    assert ([one["id"] for one in last["data"]], last["next"]) == (["s1"], None)


async def test_tenants_see_their_own_and_operators_all(store, directory, served):
    ann, bob = key_of(store, "ann"), key_of(store, "bob")
    operator = key_of(store, "bob", operator=True)
    client = await served(directory=directory)
    for key, session in ((ann, "one"), (bob, "two"), (ann, "three")):
        assert (await client.post("/v1/submit", json=program(session), headers=key)).status_code == 200
    assert await names(client, ann) == ["one", "three"]
    assert await names(client, ann, tenant="ann") == ["one", "three"]
    assert await names(client, bob) == ["two"]
    assert await names(client, operator) == ["one", "two", "three"]
    assert await names(client, operator, tenant="ann") == ["one", "three"]
    assert await names(client, operator, tenant="nobody") == []
    refused = await client.get(LIST, params={"tenant": "bob"}, headers=ann)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"after": -1}, {"after": "s1"}])
async def test_a_page_that_is_none_is_refused(served, query: dict[str, Any]):
    client = await served()
    answer = await client.get(LIST, params=query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
