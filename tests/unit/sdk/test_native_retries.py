"""Native functions that are run again, also beside an earlier run of theirs, and how long they are kept for that."""

import contextlib
import gc
import threading
import weakref

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import NativeCallFailed, ServiceUnavailable
from parrotserve.ids import CallId, SessionId
from parrotserve.protocol import CallResult, CallState
from parrotserve.sdk.session import current_session


@pytest.fixture
def told(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once the service has answered to a result."""
    answered, put = threading.Event(), service.put_result

    async def put_and_tell(
        session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None
    ) -> CallState:
        state = await put(session, call, result, attempt=attempt)
        answered.set()
        return state

    monkeypatch.setattr(service, "put_result", put_and_tell)
    return answered


def test_one_that_has_not_returned_in_time_can_be_retried(service: FakeService):
    never, seen = threading.Event(), list[str]()

    @P.NativeFunction(timeout=0.05)
    def HangOnce() -> str:
        seen.append(current_session().id)
        if len(seen) == 1:
            never.wait()
        return "well"

    result, text = HangOnce(), ""
    while not text:  # on a busy machine later runs may be late as well
        try:
            text = result.get()
        except NativeCallFailed as error:
            if "did not return" not in error.message:
                raise
            result.retry()
    never.set()
    assert text == "well"
    assert set(seen) == {current_session().id}
    assert len(seen) > 1


@pytest.mark.parametrize("raises", [False, True])
def test_what_an_earlier_run_comes_to_is_not_taken_for_what_a_later_one_does(
    service: FakeService, told: threading.Event, raises: bool
):
    retried, runs = threading.Event(), list[str]()

    @P.NativeFunction
    def Slow() -> str:
        runs.append("x")
        if len(runs) == 1:
            retried.wait()
            if raises:
                raise OSError("late")
            return "late"
        retried.set()
        told.wait()
        return "well"

    result = Slow()
    current_session().flush()
    service.until(lambda: bool(runs))
    result.cancel()
    result.retry()
    assert result.get(timeout=10) == "well"


def test_one_whose_late_success_was_ignored_can_be_retried(service: FakeService, told: threading.Event):
    cancelled, runs = threading.Event(), list[str]()

    @P.NativeFunction
    def Slow() -> str:
        runs.append("x")
        if len(runs) == 1:
            cancelled.wait()
            return "late"
        return "well"

    result = Slow()
    current_session().flush()
    service.until(lambda: bool(runs))
    result.cancel()
    cancelled.set()
    service.until(told.is_set)
    result.retry()
    assert result.get(timeout=10) == "well"


class Thing:
    """Something that only the call holds."""


@pytest.mark.parametrize("lost", [False, True])
def test_one_whose_result_was_taken_is_kept_no_more(service: FakeService, monkeypatch: pytest.MonkeyPatch, lost: bool):
    """Where the answer to the result is lost, it is told again, and is late then."""
    monkeypatch.setattr("parrotserve.sdk.natives.RETRY_SECONDS", 0.01)
    put, told = service.put_result, list[str]()

    async def put_and_lose(
        session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None
    ) -> CallState:
        state = await put(session, call, result, attempt=attempt)
        told.append(call)
        if lost and len(told) == 1:
            raise ServiceUnavailable("Gone for a moment.")
        return state

    monkeypatch.setattr(service, "put_result", put_and_lose)

    @P.NativeFunction
    def Look(thing: Thing) -> str:
        return "seen"

    thing = Thing()
    kept = weakref.ref(thing)
    result = Look(thing)
    del thing
    with contextlib.suppress(ServiceUnavailable):
        result.get(timeout=10)
    assert result.get(timeout=10) == "seen"

    def is_gone() -> bool:
        gc.collect()  # again, as the thread that ran the function may not have left it yet
        return kept() is None

    service.until(is_gone)
    assert len(told) == 1 + lost
