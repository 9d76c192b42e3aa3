"""The engine contract, rule by rule, on every engine."""

import json

import pytest
from engine_driver import Driver, generate
from engines_here import CREDITS

from parrotserve.criteria import Objective
from parrotserve.engines.base import (
    FOLLOWED_TOKENS,
    Capability,
    EndStatus,
    Extend,
    Fill,
    Heartbeat,
    Release,
    Retain,
    SegmentFinished,
    SequenceEnded,
    Update,
)
from parrotserve.sampling import FinishReason

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "The parrot said:"


# --- What an engine is --------------------------------------------------------------------------------------


async def test_it_says_what_it_is(driver: Driver):
    description = driver.engine.describe()
    assert description.model
    assert 0 < description.context_length <= description.cache_tokens
    assert description.credits == CREDITS
    assert description.capabilities == frozenset(Capability)


async def test_it_gives_signs_of_life(driver: Driver):
    seen = len(driver.events)
    await driver.until(lambda: sum(isinstance(event, Heartbeat) for event in driver.events[seen:]) >= 2)


# --- Outputs ------------------------------------------------------------------------------------------------


async def test_a_sequence_ends_in_exactly_one_terminal_event_and_nothing_follows(driver: Driver):
    sequence = await driver.open(driver.fill(PROMPT), generate(6, stream=True))
    await driver.ended(sequence)
    await driver.settle()
    events = driver.result(sequence).events
    assert isinstance(events[-1], SequenceEnded)
    assert sum(isinstance(event, SequenceEnded) for event in events) == 1
    assert events[-1].status is EndStatus.DONE


async def test_equal_prompts_get_equal_texts(driver: Driver):
    first = await driver.run(driver.fill(PROMPT), generate())
    second = await driver.run(driver.fill(PROMPT), generate())
    assert (first.text, first.tokens) == (second.text, second.tokens)
    assert first.text


async def test_the_text_is_the_decoded_tokens_without_one_leading_space(driver: Driver):
    result = await driver.run(driver.fill(PROMPT), generate())
    decoded = driver.tokenizer.decode(result.tokens)
    assert result.text == decoded[decoded.startswith(" ") :]


async def test_a_stream_joins_to_the_finished_text(driver: Driver):
    result = await driver.run(driver.fill(PROMPT), generate(stream=True))
    assert result.told_text == result.text
    assert result.told_tokens == result.tokens
    expected = 0
    for event in result.told:
        assert event.offset == expected
        expected += len(event.tokens)


async def test_an_output_that_is_not_streamed_tells_no_tokens(driver: Driver):
    result = await driver.run(driver.fill(PROMPT), generate())
    assert not result.told


async def test_outputs_come_in_the_order_of_their_segments(driver: Driver):
    result = await driver.run(
        driver.fill(PROMPT), generate(4, stream=True), driver.fill("\nThen:"), generate(4, stream=True)
    )
    assert [output.segment for output in result.outputs] == [1, 3]
    segments = [event.segment for event in result.events if not isinstance(event, SequenceEnded)]
    assert segments == sorted(segments)


async def test_a_later_output_reads_the_earlier_ones(driver: Driver):
    both = await driver.run(driver.fill(PROMPT), generate(4, ignore_eos=True), driver.fill("\nThen:"), generate(4))
    follow_up = Fill(tokens=(*driver.fill(PROMPT).tokens, *both.tokens, *driver.fill("\nThen:").tokens))  # type: ignore[misc]
    alone = await driver.run(follow_up, generate(4))
    assert both.outputs[1].text == alone.text


async def test_usage_counts_prompt_and_output(driver: Driver):
    result = await driver.run(driver.fill(PROMPT), generate(5, ignore_eos=True))
    assert result.usage.prompt_tokens == len(driver.fill(PROMPT).tokens or ())
    assert result.usage.output_tokens == 5
    assert result.usage.engine_seconds >= 0


async def test_steps_are_timed_with_what_they_held(driver: Driver):
    await driver.settle()
    seen = len(driver.times)
    result = await driver.run(driver.fill("Once timed: " + PROMPT), generate(6, stream=True, ignore_eos=True))
    times = driver.times[seen:]
    prompt, cached = result.usage.prompt_tokens, result.usage.cached_tokens
    assert sum(step.prefill_tokens for step in times) == prompt - cached
    assert sum(step.decode_rows for step in times) == 5
    assert sum(step.attended for step in times) == sum(range(cached + 1, prompt + 6))
    assert 0 < sum(step.kv_tokens for step in times) <= sum(range(prompt + 6))
    assert all(step.steps > 0 and step.seconds >= 0 for step in times)


# --- Sampling -----------------------------------------------------------------------------------------------


async def test_max_tokens_ends_an_output(driver: Driver):
    result = await driver.run(driver.fill(PROMPT), generate(3, ignore_eos=True))
    assert len(result.tokens) == 3
    assert result.outputs[0].reason is FinishReason.LENGTH


async def test_a_stop_string_ends_an_output_and_is_no_part_of_it(driver: Driver):
    whole = (await driver.run(driver.fill(PROMPT), generate(ignore_eos=True))).text
    stop = whole[3:5]
    result = await driver.run(driver.fill(PROMPT), generate(ignore_eos=True, stop=(stop,), stream=True))
    assert result.text == result.told_text == whole[: whole.index(stop)]
    assert result.outputs[0].reason is FinishReason.STOP


async def test_min_tokens_keeps_an_output_from_stopping_early(driver: Driver):
    whole = (await driver.run(driver.fill(PROMPT), generate(ignore_eos=True))).text
    result = await driver.run(driver.fill(PROMPT), generate(min_tokens=12, stop=(whole[0],)))
    assert len(result.tokens) == 12


async def test_logprobs_come_with_every_token(driver: Driver):
    result = await driver.run(driver.fill(PROMPT), generate(5, stream=True, logprobs=3))
    logprobs = result.outputs[0].logprobs
    assert [entry.token for entry in logprobs] == list(result.tokens)
    assert all(len(entry.top) == 3 and entry.top[0][1] >= entry.logprob for entry in logprobs)
    assert tuple(entry for event in result.told for entry in event.logprobs) == logprobs


async def test_an_output_satisfies_its_schema(driver: Driver):
    schema = {
        "type": "object",
        "properties": {"bird": {"enum": ["parrot", "jay"]}, "talks": {"type": "boolean"}},
        "required": ["bird", "talks"],
        "additionalProperties": False,
    }
    result = await driver.run(driver.fill(PROMPT), generate(100, schema=schema))
    value = json.loads(result.text)
    assert value["bird"] in ("parrot", "jay")
    assert value["talks"] in (True, False)


async def test_a_schema_that_cannot_be_enforced_fails_the_sequence(driver: Driver):
    result = await driver.run(driver.fill(PROMPT), generate(schema={"type": "nonsense"}))
    assert (result.status, result.error_code) == (EndStatus.FAILED, "invalid_schema")


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_seed_gives_the_same_text_alone_and_in_a_batch(driver: Driver, seed: int):
    alone = await driver.run(driver.fill(PROMPT), generate(8, temperature=0.8, seed=seed))
    crowd = [await driver.open(driver.fill(f"Bird {n} said:"), generate(20, ignore_eos=True)) for n in range(10)]
    together = await driver.run(driver.fill(PROMPT), generate(8, temperature=0.8, seed=seed))
    assert together.tokens == alone.tokens
    for other in crowd:
        await driver.ended(other)


# --- Going on after what was delivered ----------------------------------------------------------------------


async def test_delivered_tokens_are_continued_as_if_uninterrupted(driver: Driver):
    sampling = {"temperature": 0.8, "seed": 11, "frequency_penalty": 0.5}
    whole = await driver.run(driver.fill(PROMPT), generate(10, stream=True, **sampling))
    for count in range(len(whole.tokens) + 1):
        delivered = whole.tokens[:count]
        rerun = await driver.run(driver.fill(PROMPT), generate(10, stream=True, delivered=delivered, **sampling))
        assert (rerun.tokens, rerun.text) == (whole.tokens, whole.text)
        assert rerun.outputs[0].reason is whole.outputs[0].reason
        assert rerun.told_tokens == whole.tokens[count:]
        before = "".join(event.text for event in whole.told if event.offset < count)
        assert before + rerun.told_text == whole.text


async def test_delivered_tokens_that_complete_the_output_finish_it_at_once(driver: Driver):
    whole = await driver.run(driver.fill(PROMPT), generate(5, ignore_eos=True))
    rerun = await driver.run(driver.fill(PROMPT), generate(5, ignore_eos=True, delivered=whole.tokens))
    assert (rerun.text, rerun.outputs[0].reason) == (whole.text, FinishReason.LENGTH)
    assert rerun.usage.output_tokens == 0


# --- What does not fit --------------------------------------------------------------------------------------


async def test_a_prompt_longer_than_the_context_fails_with_the_numbers(driver: Driver):
    limit = driver.description.context_length
    result = await driver.run(Fill(tokens=(driver.tokenizer.encode("a")[0],) * limit), generate())
    assert (result.status, result.error_code) == (EndStatus.FAILED, "context_exceeded")
    assert result.end.error is not None
    assert str(limit) in result.end.error[1]


async def test_a_late_segment_may_turn_out_too_long(driver: Driver):
    token = driver.tokenizer.encode("a")[0]
    sequence = await driver.open(driver.fill(PROMPT), Fill(), generate())
    await driver.extend(sequence, 1, [token] * driver.description.context_length)
    assert (await driver.ended(sequence)).error_code == "context_exceeded"


async def test_more_sequences_than_credits_are_refused_and_the_others_unharmed(driver: Driver):
    waiting = [await driver.open(driver.fill(PROMPT), Fill(), generate(1)) for _ in range(CREDITS)]
    refused = await driver.run(driver.fill(PROMPT), generate(1))
    assert (refused.status, refused.error_code) == (EndStatus.FAILED, "engine_failed")
    for sequence in waiting:
        await driver.extend(sequence, 1, [])
    for sequence in waiting:
        assert (await driver.ended(sequence)).status is EndStatus.DONE


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
    sequence = await driver.open(driver.fill(PROMPT), generate(300, stream=True, ignore_eos=True))
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
    assert [len(event.tokens) for event in result.told] == [FOLLOWED_TOKENS, FOLLOWED_TOKENS]
    assert result.told_tokens == result.tokens[: 2 * FOLLOWED_TOKENS]
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
