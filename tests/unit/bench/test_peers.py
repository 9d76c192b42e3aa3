"""Servers of others: awake only while they are measured."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from parrotserve.bench.sides import awake
from parrotserve.errors import ServiceUnavailable

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups here")


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


def test_a_server_rests_but_for_its_trials(server: subprocess.Popen[bytes]):
    os.killpg(server.pid, signal.SIGSTOP)
    assert next_change(server) == "rests"
    with awake(server.pid):
        assert next_change(server) == "goes on"
    assert next_change(server) == "rests"


def test_it_rests_after_a_failed_trial_too(server: subprocess.Popen[bytes]):
    with pytest.raises(ZeroDivisionError), awake(server.pid):
        raise ZeroDivisionError
    assert next_change(server) == "rests"


def test_one_that_has_ended_is_said_to_have(server: subprocess.Popen[bytes]):
    server.kill()
    server.wait()
    with pytest.raises(ServiceUnavailable, match="has ended"), awake(server.pid):
        pytest.fail("nothing is measured")


def test_without_a_group_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch):
    signalled: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *sent: signalled.append(sent))
    with awake(None):
        assert signalled == []
    assert signalled == []
