"""What an engine is sent of a prompt while its inputs are being written: in the end, exactly the prompt."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.criteria import Objective
from parrotserve.engines.base import Capability, EngineDescription, Extend, Fill
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.ids import RequestId, TenantId, VariableId
from parrotserve.models.prompt import PromptTokenizer
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.runtime.ahead import AheadSequences, Written
from parrotserve.runtime.render import Known, Late, Opening, Piece, Renderer, ToGenerate
from parrotserve.sampling import Sampling
from parrotserve.segments import Text
from parrotserve.transforms import Transform

TOKENIZER = cast("Tokenizer", FakeTokenizer())
OUTPUT = ToGenerate(Sampling(seed=0), stream=False, delivered=())
ENGINE = EngineDescription(
    model="m", context_length=10_000, cache_tokens=1, page_tokens=1, credits=1, capabilities=frozenset(Capability)
)


def opening(*pieces: Piece, ahead: bool = True, epoch: int = 3) -> Opening:
    return Opening(
        request=RequestId("r"),
        epoch=epoch,
        model="m",
        objective=Objective.LATENCY,
        tenant=TenantId("t"),
        pieces=pieces,
        ahead=ahead,
    )


class Reading:
    """A sequence that runs ahead, and an engine's late segments."""

    def __init__(self, *pieces: Piece) -> None:
        self.all = AheadSequences()
        self.all.begin(opening(*pieces), TOKENIZER, PromptTokenizer(TOKENIZER))
        found = self.all.find("r", 3)  # type: ignore[arg-type]
        assert found is not None
        self.sequence = found
        self.texts: dict[str, Written] = {}
        self.segments: dict[int, list[int]] = {}
        self.ended: set[int] = set()

    def written(self, variable: str) -> Written:
        return self.texts.get(variable, Written("", whole=False))

    def take(self, commands: list[Extend]) -> None:
        for command in commands:
            tokens = self.segments.setdefault(command.segment, [])
            assert command.offset == len(tokens)
            assert command.segment not in self.ended
            tokens.extend(command.tokens or ())
            if command.last:
                self.ended.add(command.segment)

    def go_on(self, **texts: Written) -> str:
        """What the engine has of the first segment then."""
        self.texts |= texts
        self.take(self.sequence.go_on(self.written))
        assert not self.ended, "the end is kept back"
        return TOKENIZER.decode(self.segments.get(0, []))

    def complete(self) -> dict[int, list[int]]:
        self.take(self.sequence.complete(self.written))
        assert self.ended == self.segments.keys()
        return self.segments


def part(text: str) -> Written:
    return Written(text, whole=False)


def whole(text: str) -> Written:
    return Written(text, whole=True)


def late(variable: str, *transforms: Transform) -> Late:
    return Late(variable, transforms)  # type: ignore[arg-type]


async def test_nothing_but_outputs_is_told_when_it_is_opened():
    command = await Renderer(TOKENIZER, None).open(opening(Text("Hi "), late("v"), OUTPUT), ENGINE)
    assert command.segments[0] == Fill()
    assert len(command.segments) == 2


def test_what_is_known_goes_first_then_whole_words_as_they_come():
    reading = Reading(Text("Test "), late("v"), Text(" now"), OUTPUT)
    assert reading.go_on() == "Test"
    assert reading.go_on(v=part("def go")) == "Test def"
    assert reading.go_on(v=part("def go(): pa")) == "Test def go():"
    assert reading.go_on(v=whole("def go(): pass")) == "Test def go(): pass now"
    assert TOKENIZER.decode(reading.complete()[0]) == "Test def go(): pass now"


def test_it_passes_no_input_that_is_not_known():
    reading = Reading(late("a"), Text(" and "), late("b"), OUTPUT)
    assert reading.go_on(b=whole("second")) == ""
    assert reading.sequence.awaits == "a"
    assert reading.go_on(a=whole("first")) == "first and second"
    assert reading.sequence.awaits is None


def test_a_transform_that_needs_the_whole_value_lets_nothing_through_before():
    reading = Reading(Text("x "), late("v", Transform("strip")), OUTPUT)
    assert reading.go_on(v=part("  one two three ")) == "x"
    assert reading.go_on(v=whole("  one two ")) == "x one two"


def test_one_that_does_not_lets_it_through():
    reading = Reading(late("v", Transform("lines", (1, 2))), OUTPUT)
    assert reading.go_on(v=part("one two\nthree fo")) == "one two\nthree"


def test_only_who_waits_for_just_this_is_told_and_only_of_news():
    reading = Reading(late("a"), late("b"), OUTPUT)
    assert reading.all.readers("b") == []  # type: ignore[arg-type]
    assert reading.all.readers("a") == [reading.sequence]  # type: ignore[arg-type]
    assert reading.all.readers("a", 10) == []  # type: ignore[arg-type]
    assert reading.all.readers("a", 64) == [reading.sequence]  # type: ignore[arg-type]
    reading.go_on(a=part("word " * 200))
    assert reading.all.readers("a", 1100) == []  # type: ignore[arg-type]
    assert reading.all.readers("a", 1400) == [reading.sequence]  # type: ignore[arg-type]


def test_it_ends_with_its_epoch():
    reading = Reading(late("a"), OUTPUT)
    reading.all.end("r", 2)  # type: ignore[arg-type]
    assert len(reading.all) == 1
    reading.all.end("r", 3)  # type: ignore[arg-type]
    assert (len(reading.all), reading.all.readers("a")) == (0, [])  # type: ignore[arg-type]


WORDS = st.text(st.sampled_from("ab .\n\té"), max_size=30)
KINDS = st.one_of(
    st.builds(Text, WORDS),
    st.builds(late, st.sampled_from(["u", "v", "w"])),
    st.builds(late, st.sampled_from(["u", "v", "w"]), st.just(Transform("lines", (1, 3)))),
    st.builds(late, st.sampled_from(["u", "v", "w"]), st.just(Transform("strip"))),
    st.just(OUTPUT),
)


@given(st.lists(KINDS, max_size=8), st.fixed_dictionaries(dict.fromkeys("uvw", WORDS)), st.data())
def test_however_values_come_the_prompt_is_the_same(pieces: list[Any], values: dict[str, str], data: st.DataObject):
    pieces = [*pieces, OUTPUT]
    reading = Reading(*pieces)
    lengths = dict.fromkeys(values, 0)
    for _ in range(data.draw(st.integers(0, 8))):
        name = data.draw(st.sampled_from("uvw"))
        lengths[name] = data.draw(st.integers(lengths[name], len(values[name])))
        known = lengths[name] == len(values[name]) and data.draw(st.booleans())
        if not reading.written(name).whole:
            reading.go_on(**{name: Written(values[name][: lengths[name]], whole=known)})
    reading.texts = {name: whole(value) for name, value in values.items()}
    sent = reading.complete()
    known = [Known(values[one.variable], one.transforms) if isinstance(one, Late) else one for one in pieces]
    fills = Renderer(TOKENIZER, None)._token_segments(opening(*known, ahead=False), ENGINE)[::2]
    assert [tuple(sent[2 * number]) for number in range(len(fills))] == [
        one.tokens for one in fills if isinstance(one, Fill)
    ]


@pytest.mark.parametrize("length", [1_000, 10_000, 100_000])
def test_a_long_value_is_tokenised_a_few_times_over_and_no_more(monkeypatch: pytest.MonkeyPatch, length: int):
    text, read = "word " * (length // 5), 0
    encode = FakeTokenizer.encode

    def counted(self: FakeTokenizer, text: str, *, special: bool = False) -> list[int]:
        nonlocal read
        read += len(text)
        return encode(self, text, special=special)

    monkeypatch.setattr(FakeTokenizer, "encode", counted)
    reading = Reading(late("v"), OUTPUT)
    for end in range(0, length + 1, 5):
        for one in reading.all.readers(VariableId("v"), end):
            assert one is reading.sequence
            reading.go_on(v=part(text[:end]))
    assert read < 5 * length  # each look is at a quarter more than the one before


def test_every_stretch_has_its_segment():
    reading = Reading(Text("a"), OUTPUT, Text("b"), late("v"), OUTPUT)
    assert reading.go_on() == "a"
    reading.texts = {"v": whole("x")}
    assert {number: TOKENIZER.decode(tokens) for number, tokens in reading.complete().items()} == {0: "a", 2: "bx"}


def test_an_order_of_another_engine_that_comes_late_does_not_end_what_was_opened_since():
    reading = Reading(Late(VariableId("code"), ()), OUTPUT)
    reading.all.begin(opening(Late(VariableId("code"), ()), OUTPUT, epoch=2), TOKENIZER, PromptTokenizer(TOKENIZER))
    assert reading.all.find(RequestId("r"), 2) is None
    assert reading.all.find(RequestId("r"), 3) is reading.sequence
