"""What only a fake engine has: scripts, ticks and faults. The contract itself is checked in tests/contract."""

import asyncio

import pytest

from parrotserve.engines.base import (
    Capability,
    EndStatus,
    Engine,
    Event,
    Extend,
    Fill,
    Generate,
    Open,
    SegmentFinished,
    SequenceEnded,
    StepsTimed,
    TokensGenerated,
)
from parrotserve.engines.fake import FakeEngine, Faults, some_words
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.errors import EngineFailed, MalformedModel
from parrotserve.ids import RequestId
from parrotserve.sampling import Sampling

TOKENIZER = FakeTokenizer()
NEVER = 1e6


def open_text(name: str, text: str, *, stream: bool = False, **sampling: object) -> Open:
    output = Generate(sampling=Sampling(**sampling), stream=stream)  # type: ignore[arg-type]
    return Open(
        sequence=RequestId(name), epoch=1, segments=(Fill(tokens=tuple(TOKENIZER.encode(text))), output), salt=""
    )


async def until_ended(engine: Engine, count: int = 1) -> list[Event]:
    told: list[Event] = []
    async for events in engine.events():
        told += events
        if sum(isinstance(event, SequenceEnded) for event in told) == count:
            break
    return told


def text_of(events: list[Event]) -> str:
    (finished,) = [event for event in events if isinstance(event, SegmentFinished)]
    return finished.text


async def say(engine: FakeEngine, prompt: str, **sampling: object) -> str:
    await engine.start()
    await engine.send([open_text("a", prompt, **sampling)])
    try:
        return text_of(await until_ended(engine))
    finally:
        await engine.close()


async def test_without_a_script_it_says_some_words_that_depend_on_the_prompt():
    assert await say(FakeEngine(), "one") == await say(FakeEngine(), "one") == some_words("one")
    assert await say(FakeEngine(), "two") != some_words("one")


async def test_a_mapping_answers_by_the_longest_key_in_the_prompt():
    script = {"snake": "code", "snake test": "test"}
    assert await say(FakeEngine(script=script), "a snake game") == "code"
    assert await say(FakeEngine(script=script), "a snake test please") == "test"
    assert await say(FakeEngine(script=script), "else") == some_words("else")


async def test_a_function_answers_with_what_it_returns():
    assert await say(FakeEngine(script=str.upper), "Loud: é") == "LOUD: É"


async def test_a_schema_is_kept_whatever_the_script_says():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert await say(FakeEngine(script={"": "no json"}), "x", schema=schema) == '{"n":0}'
    assert await say(FakeEngine(script={"": '{"n": 42}'}), "x", schema=schema) == '{"n": 42}'


async def test_it_goes_on_beyond_its_script_if_it_has_to():
    assert await say(FakeEngine(script={"": "ab"}), "x", max_tokens=7, ignore_eos=True) == "ab ab a"
    assert await say(FakeEngine(script={"": "ab"}), "x", max_tokens=7, min_tokens=4) == "ab a"


async def test_a_ticking_engine_moves_only_when_told():
    engine = FakeEngine(script={"": "abc"}, ticking=True, step_seconds=0.5, heartbeat_seconds=NEVER)
    await engine.start()
    await engine.send([open_text("a", "x", stream=True)])
    told = engine.events()
    await anext(told)  # the first heartbeat
    for letter in "abc":
        await engine.tick()
        event, times = await anext(told)
        assert isinstance(times, StepsTimed)
        assert times.seconds == 0.5
        assert isinstance(event, TokensGenerated)
        assert event.text == letter
    assert engine.now == 1.5
    await engine.close()


async def test_an_engine_of_text_takes_text():
    engine = FakeEngine(script=str.upper, capabilities=frozenset({Capability.LATE_SEGMENTS}))
    await engine.start()
    sequence = RequestId("a")
    segments = (Fill(text="é"), Fill(), Generate(sampling=Sampling()))
    await engine.send([Open(sequence=sequence, epoch=1, segments=segments, salt="")])
    await engine.send([Extend(sequence=sequence, epoch=1, segment=1, text="èa", last=False)])
    await engine.send([Extend(sequence=sequence, epoch=1, segment=1, offset=1, text="ab")])
    assert text_of(await until_ended(engine)) == "ÉÈAB"
    await engine.close()


async def test_it_refuses_to_start_if_told():
    engine = FakeEngine(faults=Faults(refuse_start=MalformedModel("broken")))
    with pytest.raises(MalformedModel, match="broken"):
        await engine.start()


async def test_it_dies_after_so_many_events():
    engine = FakeEngine(faults=Faults(die_after_events=3))
    await engine.start()
    await engine.send([open_text("a", "x", stream=True)])
    told: list[Event] = []

    async def listen() -> None:
        async for events in engine.events():
            told.extend(events)

    with pytest.raises(EngineFailed, match="died"):
        await listen()
    assert len([event for event in told if isinstance(event, TokensGenerated)]) == 3
    with pytest.raises(EngineFailed):
        await engine.send([open_text("b", "x")])
    await engine.close()


async def test_it_is_found_hung_when_it_falls_silent():
    engine = FakeEngine(faults=Faults(hang_after_events=1), heartbeat_seconds=0.001)
    await engine.start()
    await engine.send([open_text("a", "x", stream=True)])
    with pytest.raises(EngineFailed, match="hung"):
        await until_ended(engine)
    await engine.close()


async def test_it_fails_the_prompts_that_it_was_told_to_and_no_other():
    engine = FakeEngine(faults=Faults(fail_prompts=("bad",)))
    await engine.start()
    await engine.send([open_text("a", "a bad one"), open_text("b", "a good one")])
    events = await until_ended(engine, 2)
    statuses = {event.sequence: event.status for event in events if isinstance(event, SequenceEnded)}
    assert statuses == {"a": EndStatus.FAILED, "b": EndStatus.DONE}
    await engine.close()


async def test_it_waits_for_a_consumer_that_does_not_keep_up():
    engine = FakeEngine(script={"": "x" * 2000}, heartbeat_seconds=NEVER)
    await engine.start()
    await engine.send([open_text("a", "x", stream=True, max_tokens=2000)])
    steps = -1
    while engine.heartbeat.steps != steps:
        steps = engine.heartbeat.steps
        for _ in range(50):
            await asyncio.sleep(0)
    assert 0 < steps < 2000
    assert text_of(await until_ended(engine)) == "x" * 2000
    await engine.close()


# --- The tokenizer ------------------------------------------------------------------------------------------


def test_tokens_are_bytes():
    assert TOKENIZER.decode(TOKENIZER.encode("é<|end|>\n")) == "é<|end|>\n"
    assert TOKENIZER.count("é") == 2


def test_control_tokens_are_recognised_only_when_asked():
    assert TOKENIZER.encode("a<|end|>b", special=True) == [97, 256, 98]
    assert TOKENIZER.decode([97, 256, 98]) == "ab"
    assert TOKENIZER.decode([97, 256, 98], special=True) == "a<|end|>b"


def test_truncation_cuts_at_a_character():
    assert TOKENIZER.truncate("aéb", 2) == "a"


def test_a_stream_holds_back_half_a_character():
    stream = TOKENIZER.stream()
    first, second = TOKENIZER.encode("é")
    assert [stream.push([first]), stream.push([second]), stream.push([first]), stream.flush()] == ["", "é", "", "�"]
