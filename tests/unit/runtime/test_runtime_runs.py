import logging

import pytest

from parrotserve.engines.base import EndStatus, SegmentFinished, SequenceEnded, TokensGenerated
from parrotserve.errors import Cancelled, ContextExceeded, EngineFailed
from parrotserve.graph.events import OutputProduced
from parrotserve.graph.graph import Graph
from parrotserve.ids import RequestId, VariableId
from parrotserve.protocol import ErrorBody, Failure, Value
from parrotserve.runtime.board import Board
from parrotserve.runtime.runs import Runs, request_ended
from parrotserve.sampling import FinishReason, TokenLogprob, Usage
from parrotserve.store.recorder import Recorder

R = RequestId("r")
A, B = VariableId("a"), VariableId("b")


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def runs(board: Board) -> Runs:
    return Runs(board, Recorder(Graph()))


def tokens(
    text: str, *, offset: int = 0, epoch: int = 1, segment: int = 1, shown: str | None = None
) -> TokensGenerated:
    """One token a character."""
    ids = tuple(map(ord, text))
    logprobs = tuple(TokenLogprob(token, -1.0) for token in ids)
    return TokensGenerated(
        sequence=R,
        epoch=epoch,
        segment=segment,
        offset=offset,
        tokens=ids,
        text=text if shown is None else shown,
        logprobs=logprobs,
    )


def finished(text: str, *, epoch: int = 1, segment: int = 1, logprobs: int = 0) -> SegmentFinished:
    return SegmentFinished(
        sequence=R,
        epoch=epoch,
        segment=segment,
        tokens=tuple(map(ord, text)),
        text=text,
        reason=FinishReason.STOP,
        logprobs=tuple(TokenLogprob(ord(char), -2.0) for char in text[len(text) - logprobs :]),
    )


def test_streamed_text_goes_to_the_board_and_the_output_to_the_machine(runs: Runs, board: Board):
    runs.begin(R, 1, [A])
    runs.tokens(tokens("Hel"))
    runs.tokens(tokens("lo", offset=3))
    assert board.text(A) == "Hello"
    assert runs.finished(finished("Hello.")) == OutputProduced(
        request=R, epoch=1, variable=A, value="Hello.", reason=FinishReason.STOP, logprobs=5
    )


def test_a_rerun_begins_with_what_was_delivered(runs: Runs, board: Board):
    assert runs.begin(R, 1, [A, B]) == {A: (), B: ()}
    runs.finished(finished("one"))
    runs.tokens(tokens("tw", segment=3))
    assert runs.begin(R, 2, [A, B]) == {A: tuple(b"one"), B: tuple(b"tw")}
    runs.tokens(tokens("o", offset=2, epoch=2, segment=3))
    assert board.text(B) == "two"


def test_what_is_held_back_at_a_death_comes_with_the_rerun(runs: Runs, board: Board):
    runs.begin(R, 1, [A])
    runs.tokens(tokens("ab", shown="a"))
    assert runs.begin(R, 2, [A]) == {A: tuple(b"ab")}
    runs.tokens(tokens("c", offset=2, epoch=2, shown="bc"))
    assert board.text(A) == "abc"


def test_events_of_an_earlier_epoch_are_dropped(runs: Runs, board: Board):
    runs.begin(R, 1, [A])
    runs.begin(R, 2, [A])
    runs.tokens(tokens("old"))
    assert runs.finished(finished("old")) is None
    assert board.text(A) == ""


def test_an_output_that_was_ready_before_is_not_told_again(runs: Runs, board: Board):
    runs.begin(R, 1, [A, B])
    runs.finished(finished("one"))
    board.publish(A, Value(variable=A, value="one"))
    runs.begin(R, 2, [A, B])
    assert runs.finished(finished("one", epoch=2)) is None


def test_an_output_that_was_complete_when_its_request_had_been_cancelled_is_told_by_a_retry(runs: Runs, board: Board):
    runs.begin(R, 1, [A])
    board.publish(A, Failure(variable=A, error=ErrorBody.of(Cancelled("no longer wanted"))))
    assert runs.finished(finished("one", logprobs=3)) is not None  # on its way already; the machine ignores it
    runs.take_logprobs(A)
    assert runs.begin(R, 2, [A]) == {A: tuple(b"one")}
    told = runs.finished(finished("one", epoch=2))
    assert told is not None
    assert told.value == "one"
    assert [one.token for one in runs.take_logprobs(A)] == list(b"one")


def test_a_gap_in_a_stream_is_the_engines_failure(runs: Runs):
    runs.begin(R, 1, [A])
    runs.tokens(tokens("ab"))
    with pytest.raises(EngineFailed, match="token 3 of a after 2"):
        runs.tokens(tokens("d", offset=3))


def test_what_readers_have_seen_is_not_shown_twice_after_a_retry(runs: Runs, board: Board):
    runs.begin(R, 1, [A])
    runs.tokens(tokens("abc"))
    board.publish(A, Failure(variable=A, error=ErrorBody.of(EngineFailed("no"))))
    runs.forget(R)
    assert runs.begin(R, 2, [A]) == {A: ()}
    runs.tokens(tokens("ab", epoch=2))
    runs.tokens(tokens("cd", offset=2, epoch=2))
    assert board.text(A) == "abcd"


def test_a_final_text_never_contradicts_the_stream(runs: Runs, caplog: pytest.LogCaptureFixture):
    runs.begin(R, 1, [A])
    runs.tokens(tokens("seen"))
    with caplog.at_level(logging.ERROR):
        produced = runs.finished(finished("SEEN and more"))
    assert produced is not None
    assert produced.value == "seen and more"
    assert "does not begin with" in caplog.text


def test_logprobs_of_a_rerun_are_those_told_before_and_the_rest(runs: Runs):
    runs.begin(R, 1, [A])
    runs.tokens(tokens("ab"))
    runs.begin(R, 2, [A])
    runs.finished(finished("abc", epoch=2, logprobs=1))
    assert [(one.token, one.logprob) for one in runs.take_logprobs(A)] == [(97, -1.0), (98, -1.0), (99, -2.0)]
    assert runs.take_logprobs(A) == ()


def test_streams_are_asked_for_by_segment(runs: Runs):
    runs.begin(R, 1, [A, B])
    assert runs.segments_of(R, frozenset({B})) == (3,)
    assert runs.segments_of(RequestId("other"), frozenset({B})) == ()


def test_nothing_is_kept_of_a_forgotten_request(runs: Runs):
    runs.begin(R, 1, [A])
    runs.forget(R)
    runs.tokens(tokens("late"))
    assert runs.finished(finished("late")) is None
    assert len(runs) == 0


def test_an_engines_error_becomes_the_same_error():
    usage = Usage(prompt_tokens=3)
    ended = SequenceEnded(
        sequence=R, epoch=4, status=EndStatus.FAILED, usage=usage, error=(ContextExceeded.code, "too long")
    )
    event = request_ended(ended)
    assert isinstance(event.error, ContextExceeded)
    assert (event.epoch, event.usage, event.cancelled) == (4, usage, False)
    assert request_ended(SequenceEnded(sequence=R, epoch=4, status=EndStatus.CANCELLED)).cancelled
