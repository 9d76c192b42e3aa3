"""Servers of others: awake only while they are measured."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from parrotserve import __version__
from parrotserve.bench.sides import awake, parrot_sides, version_told
from parrotserve.errors import ServiceUnavailable

groups = pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups here")


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own that says when it goes on."""
    command = [sys.executable, "-c", "import signal\nwhile True: signal.pause()"]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def next_change(process: subprocess.Popen[bytes]) -> str:
    """What becomes of a child, as soon as something does."""
    found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WCONTINUED)
    assert found is not None
    return {os.CLD_STOPPED: "rests", os.CLD_CONTINUED: "goes on"}[found.si_code]


@groups
def test_a_server_rests_but_for_its_trials(server: subprocess.Popen[bytes]):
    os.killpg(server.pid, signal.SIGSTOP)
    assert next_change(server) == "rests"
    with awake(server.pid):
        assert next_change(server) == "goes on"
    assert next_change(server) == "rests"


@groups
def test_it_rests_after_a_failed_trial_too(server: subprocess.Popen[bytes]):
    with pytest.raises(ZeroDivisionError), awake(server.pid):
        raise ZeroDivisionError
    assert next_change(server) == "rests"


@groups
def test_one_that_has_ended_is_said_to_have(server: subprocess.Popen[bytes]):
    server.kill()
    server.wait()
    with pytest.raises(ServiceUnavailable, match="has ended"), awake(server.pid):
        pytest.fail("nothing is measured")


def test_without_a_group_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch):
    signalled: list[tuple[int, int]] = []

    def signal_sent(group: int, number: int) -> None:
        signalled.append((group, number))

    monkeypatch.setattr(os, "killpg", signal_sent, raising=False)
    with awake(None):
        assert signalled == []
    assert signalled == []


@pytest.mark.parametrize(
    ("path", "answer", "told"),
    [
        ("/version", {"version": "0.11.0"}, {"server": "vLLM 0.11.0"}),
        ("/props", {"build_info": "b6700-abc"}, {"server": "llama.cpp b6700-abc"}),
        ("/version", ["0.11.0"], {}),
        ("/health", {}, {}),
    ],
    ids=["vLLM", "llama.cpp", "of another form", "one that does not say"],
)
async def test_a_server_is_asked_for_its_version(path: str, answer: object, told: dict[str, str]):
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer) if request.url.path == path else httpx.Response(404)

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond), base_url="http://peer") as client:
        assert await version_told(client) == told


async def test_one_that_is_gone_is_no_failure_of_the_record():
    def respond(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("gone")

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond), base_url="http://peer") as client:
        assert await version_told(client) == {}


async def test_parrot_tells_all_options_of_a_trial():
    side = parrot_sides(("--model", "fake"), cap=4)["without prefix"]
    assert await side.served_by(("--engines", "2")) == {
        "server": f"parrotserve {__version__}",
        "options": "--model fake --without prefix --engines 2",
    }
