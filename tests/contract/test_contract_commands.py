"""The engine contract, on every engine: what it does with commands, and with sequences of which a part comes late."""

import pytest
from engine_driver import Driver, generate

from parrotserve.criteria import Objective
from parrotserve.engines.base import (
    FOLLOWED_TOKENS,
    EndStatus,
    Extend,
    Fill,
    Release,
    Retain,
    SegmentFinished,
    Update,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "The parrot said:"


# --- Late segments ------------------------------------------------------------------------------------------


async def test_late_segments_give_the_same_text_as_early_ones(driver: Driver):
    value = driver.fill(" hello, and what a fine day it is, is it not?").tokens or ()
    early = await driver.run(driver.fill(PROMPT), Fill(tokens=value), driver.fill("\nReply:"), generate())
    late = await driver.open(driver.fill(PROMPT), Fill(), driver.fill("\nReply:"), generate())
    await driver.settle()
    await driver.extend(late, 1, value)
    assert (await driver.ended(late)).text == early.text


async def test_what_is_known_before_a_late_segment_is_computed_meanwhile_and_holds_nobody_up(driver: Driver):
    await driver.settle()
    seen, known = len(driver.times), driver.fill("Computed ahead of what comes later. " * 3)
    ahead = await driver.open(known, Fill(), generate(6))
    other = await driver.run(driver.fill("Another prompt:"), generate(6))
    assert other.status is EndStatus.DONE
    times = driver.times[seen:]
    assert sum(step.prefill_tokens for step in times) >= len(known.tokens or ())
    assert not driver.result(ahead).events
    seen = len(driver.times)
    await driver.extend(ahead, 1, driver.tokenizer.encode("Now:"))
    result = await driver.ended(ahead)
    rest = result.usage.prompt_tokens - len(known.tokens or ())
    assert sum(step.prefill_tokens for step in driver.times[seen:]) <= rest
    assert result.text == (await driver.run(known, driver.fill("Now:"), generate(6), salt="unshared")).text


async def test_a_late_segment_may_come_token_by_token_and_twice(driver: Driver):
    value = driver.fill(" hello there").tokens or ()
    early = await driver.run(driver.fill(PROMPT), Fill(tokens=value), generate())
    late = await driver.open(driver.fill(PROMPT), Fill(), generate())
    for offset, token in enumerate(value):
        for _ in range(2):
            await driver.extend(late, 1, [token], offset=offset, last=False)
    await driver.extend(late, 1, [], offset=len(value))
    assert (await driver.ended(late)).text == early.text


# --- Commands twice, late, or of another epoch --------------------------------------------------------------


async def test_commands_given_twice_change_nothing(driver: Driver):
    expected = await driver.run(driver.fill(PROMPT), generate())
    sequence = driver.fresh()
    for _ in range(3):
        await driver.open(driver.fill(PROMPT), Fill(), generate(), sequence=sequence)
        await driver.pause(sequence)
        await driver.resume(sequence)
        await driver.extend(sequence, 1, [])
    assert (await driver.ended(sequence)).text == expected.text
    for _ in range(2):
        await driver.open(driver.fill(PROMPT), generate(), sequence=sequence)
        await driver.cancel(sequence)
    await driver.settle()
    assert driver.result(sequence).status is EndStatus.DONE


async def test_commands_of_an_older_epoch_are_ignored(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), generate(), epoch=5)
    await driver.open(driver.fill("Other:"), generate(), sequence=sequence, epoch=4)
    await driver.cancel(sequence)
    assert (await driver.ended(sequence, 5)).status is EndStatus.DONE
    assert not driver.result(sequence, 4).events


async def test_a_newer_epoch_replaces_what_the_sequence_did(driver: Driver):
    expected = await driver.run(driver.fill(PROMPT), generate(6))
    sequence = await driver.open(driver.fill("Other:"), Fill(), generate(), epoch=1)
    await driver.open(driver.fill(PROMPT), generate(6), sequence=sequence, epoch=2)
    assert (await driver.ended(sequence, 1)).status is EndStatus.CANCELLED
    assert (await driver.ended(sequence, 2)).text == expected.text


async def test_commands_for_sequences_that_never_were_are_ignored(driver: Driver):
    nobody = driver.fresh()
    await driver.cancel(nobody)
    await driver.extend(nobody, 0, [1])
    await driver.settle()
    assert not driver.result(nobody).events


# --- Cancel, pause, update, streams -------------------------------------------------------------------------


async def test_a_cancelled_sequence_ends_so_and_frees_what_it_held(driver: Driver):
    # However fast it is, it cannot end by itself: a value is missing.
    sequence = await driver.open(driver.fill(PROMPT), generate(300, stream=True, ignore_eos=True), Fill(), generate(4))
    await driver.told(sequence, 3)
    await driver.cancel(sequence)
    assert (await driver.ended(sequence)).status is EndStatus.CANCELLED
    assert (await driver.next_heartbeat()).used_pages == 0


async def test_a_paused_sequence_makes_no_progress_and_then_goes_on(driver: Driver):
    early = await driver.run(driver.fill(PROMPT), generate(4), driver.fill("."), generate(6))
    sequence = await driver.open(driver.fill(PROMPT), generate(4), Fill(), generate(6))
    await driver.until(lambda: driver.result(sequence).outputs)
    await driver.pause(sequence)
    await driver.extend(sequence, 2, driver.fill(".").tokens or ())
    await driver.settle()
    assert len(driver.result(sequence).events) == 1
    await driver.resume(sequence)
    assert [output.text for output in (await driver.ended(sequence)).outputs] == [o.text for o in early.outputs]


async def test_an_output_can_be_streamed_from_any_time_on(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), Fill(), generate(20, ignore_eos=True))
    await driver.send(
        Update(sequence=sequence, epoch=1, stream=(2,)), Extend(sequence=sequence, epoch=1, segment=1, tokens=())
    )
    result = await driver.ended(sequence)
    assert result.told_tokens == result.tokens
    assert result.told_text == result.text


async def test_who_streams_in_the_middle_is_told_everything_so_far(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), generate(60, ignore_eos=True))
    await driver.stream(sequence, 1)
    result = await driver.ended(sequence)
    assert result.told_tokens in (result.tokens, ())  # nothing, if it was finished before the engine heard of it


async def test_who_follows_is_told_many_tokens_at_a_time(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), Fill(), generate(40, ignore_eos=True))
    await driver.send(
        Update(sequence=sequence, epoch=1, follow=(2,)), Extend(sequence=sequence, epoch=1, segment=1, tokens=())
    )
    result = await driver.ended(sequence)
    assert 1 <= len(result.told) <= 2  # what a step wrote of a draft may be told with them
    assert all(len(event.tokens) >= FOLLOWED_TOKENS for event in result.told)
    assert result.told_tokens == result.tokens[: len(result.told_tokens)]
    assert result.text.startswith(result.told_text)


async def test_who_follows_and_then_streams_is_told_the_rest(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), Fill(), generate(20, ignore_eos=True))
    await driver.send(
        Update(sequence=sequence, epoch=1, follow=(2,)),
        Update(sequence=sequence, epoch=1, stream=(2,)),
        Extend(sequence=sequence, epoch=1, segment=1, tokens=()),
    )
    result = await driver.ended(sequence)
    assert result.told_tokens == result.tokens


async def test_a_later_output_can_be_streamed_alone(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), generate(4), driver.fill("."), Fill(), generate(3))
    await driver.until(lambda: driver.result(sequence).outputs)
    await driver.stream(sequence, 4)
    await driver.extend(sequence, 3, [])
    result = await driver.ended(sequence)
    assert {event.segment for event in result.told} == {4}
    assert result.told_text == result.outputs[1].text


async def test_the_objective_may_change_at_any_time(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), Fill(), generate(4), objective=Objective.THROUGHPUT)
    await driver.send(Update(sequence=sequence, epoch=1, objective=Objective.LATENCY))
    await driver.extend(sequence, 1, [])
    assert (await driver.ended(sequence)).status is EndStatus.DONE


# --- The cache ----------------------------------------------------------------------------------------------


async def test_a_prefix_may_be_retained_and_released(driver: Driver):
    tokens = tuple(driver.tokenizer.encode("A prefix that many prompts begin with. " * 4))
    await driver.send(Retain("key", "retention", tokens))
    await driver.run(Fill(tokens=tokens), driver.fill("x"), generate(1), salt="retention")
    assert (await driver.next_heartbeat()).retained_pages > 0
    await driver.send(Release("key"))
    assert (await driver.next_heartbeat()).retained_pages == 0


async def test_outputs_are_complete_when_many_run_together(driver: Driver):
    sequences = [await driver.open(driver.fill(f"{n} {PROMPT}"), generate(8, ignore_eos=True)) for n in range(30)]
    for sequence in sequences:
        result = await driver.ended(sequence)
        assert len(result.tokens) == 8
        assert sum(isinstance(event, SegmentFinished) for event in result.events) == 1
