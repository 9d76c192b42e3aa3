"""Native functions that are run again while an earlier run of theirs goes on."""

import threading

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import NativeCallFailed
from parrotserve.ids import CallId, SessionId
from parrotserve.protocol import CallResult
from parrotserve.sdk.session import current_session


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
    service: FakeService, monkeypatch: pytest.MonkeyPatch, raises: bool
):
    retried, told, runs = threading.Event(), threading.Event(), list[str]()
    put = service.put_result

    async def put_and_tell(session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None) -> None:
        await put(session, call, result, attempt=attempt)
        told.set()

    monkeypatch.setattr(service, "put_result", put_and_tell)

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
