"""What commands do to sequences that run: late segments, repetitions, pauses and streams."""

import pytest
from token_backend import VOCABULARY, Bench, alone, fill, generate, late, streamed

from parrotserve.engines.base import (
    Cancel,
    EndStatus,
    Extend,
    Fill,
    Pause,
    Release,
    Resume,
    SequenceEnded,
    Update,
)
from parrotserve.ids import RequestId

A = RequestId("a")


# --- Late segments ----------------------------------------------------------------------------------------------


def test_a_late_segment_gives_the_same_text_as_an_early_one():
    bench = Bench()
    bench.open("a", fill("the code: "), late(), fill(" the test: "), generate(9, temperature=1.0, seed=5))
    bench.run()
    bench.extend("a", 1, "print(1)")
    bench.run()
    assert bench.text("a") == alone(fill("the code: print(1) the test: "), generate(9, temperature=1.0, seed=5))


def test_known_segments_are_prefilled_while_a_later_one_is_missing():
    bench = Bench()
    bench.open("a", fill("x" * 30), late(), generate(1))
    bench.run()
    assert bench.backend.computed_rows == 30
    bench.extend("a", 1, "yy")
    bench.run()
    assert bench.backend.computed_rows == 32


def test_a_late_segment_may_come_in_parts_and_parts_may_come_twice():
    bench = Bench()
    bench.open("a", fill("the code: "), late(), generate(9))
    bench.extend("a", 1, "print", last=False)
    bench.run()
    bench.extend("a", 1, "print", last=False)
    bench.extend("a", 1, "nt(1", offset=3, last=False)
    bench.run()
    bench.extend("a", 1, ")", offset=7)
    bench.extend("a", 1, "ignored", offset=8)
    bench.run()
    assert bench.text("a") == alone(fill("the code: print(1)"), generate(9))


def test_a_part_that_is_missing_fails_the_sequence():
    bench = Bench()
    bench.open("a", late(), generate(9))
    bench.extend("a", 0, "late", offset=4)
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == "engine_failed"


def test_an_extension_of_an_output_fails_the_sequence():
    bench = Bench()
    bench.open("a", late(), generate(9))
    bench.core.handle(Extend(sequence=A, epoch=1, segment=1, tokens=(1,)))
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == "engine_failed"


@pytest.mark.parametrize("wrong", [VOCABULARY, -1])
def test_a_token_that_the_weights_lack_fails_its_sequence_alone(wrong: int):
    bench = Bench(vocabulary=VOCABULARY)
    bench.open("a", Fill(tokens=(1, wrong)), generate(9))
    bench.open("b", late(), generate(9))
    bench.open("c", fill("abc"), generate(9))
    bench.core.handle(Extend(sequence=RequestId("b"), epoch=1, segment=0, tokens=(2, wrong)))
    bench.run()
    for name in "ab":
        code, message = bench.ended(name).error or ("", "")
        assert (code, f"Token {wrong} is none of the model's" in message) == ("engine_failed", True)
    assert bench.text("c") == alone(fill("abc"), generate(9))


def test_a_late_segment_may_turn_out_empty():
    bench = Bench()
    bench.open("a", fill("abc"), late(), generate(9))
    bench.extend("a", 1, "")
    bench.run()
    assert bench.text("a") == alone(fill("abc"), generate(9))


def test_the_late_segment_of_several_with_the_same_full_pages_may_turn_out_empty():
    bench = Bench()
    for name in "ab":
        bench.open(name, fill("abcdefgh"), late(), generate(9))
    bench.run()
    assert bench.backend.computed_rows == 8
    for name in "ab":
        bench.extend(name, 1, "")
    bench.run()
    assert bench.text("a") == bench.text("b") == alone(fill("abcdefgh"), generate(9))


# --- Commands twice, late, or of another epoch ------------------------------------------------------------------


def test_commands_given_twice_change_nothing():
    bench = Bench()
    for _ in range(2):
        bench.open("a", fill("x"), late(), generate(9))
        bench.core.handle(Pause(A, 1))
        bench.core.handle(Resume(A, 1))
        bench.extend("a", 1, "yz")
    bench.run()
    for _ in range(2):
        bench.open("a", fill("x"), late(), generate(9))
        bench.core.handle(Cancel(A, 1))
    bench.run()
    assert bench.status("a") is EndStatus.DONE
    assert bench.text("a") == alone(fill("xyz"), generate(9))


def test_commands_of_an_older_epoch_are_ignored():
    bench = Bench()
    bench.open("a", fill("x"), generate(9), epoch=2)
    bench.open("a", fill("y"), generate(9), epoch=1)
    bench.core.handle(Cancel(A, 1))
    bench.run()
    assert bench.text("a") == alone(fill("x"), generate(9))


def test_a_newer_epoch_replaces_what_the_sequence_did():
    bench = Bench()
    bench.open("a", fill("x"), generate(50, stream=True, ignore_eos=True), epoch=1)
    bench.step()
    bench.open("a", fill("y"), generate(9), epoch=2)
    bench.run()
    ends = [event for event in bench.events if isinstance(event, SequenceEnded)]
    assert [(end.epoch, end.status) for end in ends] == [(1, EndStatus.CANCELLED), (2, EndStatus.DONE)]
    assert bench.text("a") == alone(fill("y"), generate(9))


def test_commands_for_sequences_that_never_were_are_ignored():
    bench = Bench()
    bench.core.handle(Cancel(A, 1))
    bench.core.handle(Release("nothing"))
    bench.extend("a", 0, "x")
    assert bench.step() == []


# --- Pause, streams ---------------------------------------------------------------------------------------------


def test_a_paused_sequence_makes_no_progress_and_then_goes_on():
    bench = Bench()
    bench.open("a", fill("x"), generate(30, ignore_eos=True))
    bench.step()
    bench.core.handle(Pause(A, 1))
    steps = len(bench.backend.steps)
    bench.run()
    assert len(bench.backend.steps) == steps
    bench.core.handle(Resume(A, 1))
    bench.run()
    assert bench.text("a") == alone(fill("x"), generate(30, ignore_eos=True))


def test_who_streams_later_is_told_everything_so_far():
    bench = Bench()
    bench.open("a", fill("x"), generate(30, ignore_eos=True))
    for _ in range(10):
        bench.step()
    bench.core.handle(Update(sequence=A, epoch=1, stream=(1,)))
    bench.step()
    (event,) = streamed(bench)
    assert (event.offset, len(event.tokens)) == (0, 11)
    bench.run()
    assert "".join(event.text for event in streamed(bench)) == bench.text("a")


def test_who_streams_a_paused_sequence_is_told_what_it_has():
    bench = Bench()
    bench.open("a", fill("x"), generate(30, ignore_eos=True))
    bench.step()
    bench.core.handle(Pause(A, 1))
    bench.core.handle(Update(sequence=A, epoch=1, stream=(1,)))
    assert not bench.core.idle
    bench.step()
    assert [len(event.tokens) for event in streamed(bench)] == [1]


def test_an_output_not_yet_begun_can_be_streamed_too():
    bench = Bench()
    bench.open("a", fill("x"), generate(3), fill("y"), generate(4))
    bench.core.handle(Update(sequence=A, epoch=1, stream=(3,)))
    bench.run()
    assert {event.segment for event in streamed(bench)} == {3}
    assert "".join(event.text for event in streamed(bench)) == bench.text("a", 1)
