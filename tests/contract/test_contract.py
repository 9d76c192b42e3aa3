"""The engine contract, on every engine: what it says of itself, and what it writes."""

import json

import pytest
from engine_driver import Driver, generate
from engines_here import CREDITS

from parrotserve.engines.base import (
    Capability,
    EndStatus,
    Fill,
    Heartbeat,
    SequenceEnded,
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
    # Nothing is tried ahead of its turn where log-probabilities are asked for, so that each token is one row.
    output = generate(6, stream=True, ignore_eos=True, logprobs=1)
    result = await driver.run(driver.fill("Once timed: " + PROMPT), output)
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
    assert result.end.usage.prompt_tokens == 0, "what was not read is not paid for"


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
