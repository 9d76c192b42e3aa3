"""Commands that look at what a service has: `parrot sessions`, and `parrot explain` of one of them."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sdk_server import Served
from typer.testing import CliRunner, Result

from parrotserve.cli.app import app
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

Serve = Callable[..., Served]


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def open_session(url: str, name: str, key: str = "") -> None:
    body = {
        "session": name,
        "variables": [{"id": f"v-{name}"}, {"id": f"w-{name}"}],
        "requests": [
            {"id": name, "segments": [{"kind": "text", "text": "tell"}, {"kind": "output", "variable": f"v-{name}"}]}
        ],
        "calls": [{"id": f"c-{name}", "function": "f", "inputs": [], "output": f"w-{name}"}],
        "wait": [{"variable": f"v-{name}"}],
    }
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    assert httpx.post(f"{url}/v1/submit", json=body, headers=headers).status_code == 200


def test_sessions_are_listed_as_a_table_and_as_data(parrot, serve: Serve, monkeypatch: pytest.MonkeyPatch):
    url = serve().url
    monkeypatch.setenv("PARROT_URL", url)
    none = parrot("sessions")
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no session now: one lives from a program's first call to its end" in none.stderr
    open_session(url, "s-0123456789abcdef")
    open_session(url, "s-2")
    listed = parrot("sessions")
    header, first, second = listed.stdout.splitlines()
    assert header.split() == ["session", "tenant", "opened", "last", "used", "requests"]
    assert first.split()[:2] == ["s-0123456789abcdef", "local"]
    assert first.endswith("1 done; native calls: 1 offered")
    assert second.split()[0] == "s-2"
    assert max(map(len, listed.stdout.splitlines())) <= 80
    told = json.loads(parrot("sessions", "--json").stdout)
    assert [(one["id"], one["requests"]) for one in told["data"]] == [
        ("s-0123456789abcdef", {"done": 1}),
        ("s-2", {"done": 1}),
    ]


def test_who_explains_a_session_that_there_is_not_is_told_of_the_list(parrot, serve: Serve):
    url = serve().url
    result = parrot("explain", "s-1", "--url", url)
    assert result.exit_code == 1
    assert "There is no session 's-1'" in result.stderr
    assert "`parrot sessions` lists those that live" in result.stderr


def test_which_sessions_are_listed_depends_on_the_key(
    parrot, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    store = TenantStore(tmp_path)
    keys: dict[str, str] = {}
    for name in ("ann", "bob"):
        store.create_tenant(name, Limits())
        keys[name] = store.create_key(name)[1]
    keys["operator"] = store.create_key("ann", operator=True)[1]
    store.close()
    url = serve(config={"data": tmp_path}).url
    for name in ("ann", "bob"):
        open_session(url, f"s-{name}", keys[name])

    def listed(key: str, *more: str) -> Result:
        monkeypatch.setenv("PARROT_API_KEY", key)
        return parrot("sessions", "--url", url, *more)

    def names(result: Result) -> list[str]:
        return [line.split()[0] for line in result.stdout.splitlines()[1:]]

    assert names(listed(keys["ann"])) == ["s-ann"]
    assert names(listed(keys["operator"])) == ["s-ann", "s-bob"]
    assert names(listed(keys["operator"], "--tenant", "bob")) == ["s-bob"]
    assert "no session of tenant 'bbo' now" in listed(keys["operator"], "--tenant", "bbo").stderr
    for key, more, said in (
        (keys["ann"], ("--tenant", "bob"), "use a key made with `parrot key create --operator`"),
        ("wrong", (), "This key is not valid here"),
        ("", (), "This service needs a key"),
    ):
        result = listed(key, *more)
        assert (result.exit_code, said in result.stderr) == (1, True), result.stderr


def test_where_nobody_serves_it_is_said_what_to_do(parrot):
    result = parrot("sessions")
    assert result.exit_code == 2
    assert "say which service" in result.output
    result = parrot("sessions", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "or start a service there with `parrot serve`" in result.stderr
