"""Native functions that are run again while an earlier run of theirs goes on."""

import threading

from fake_service import FakeService

import Parrot as P
from parrotserve.errors import NativeCallFailed
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
