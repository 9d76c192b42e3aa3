"""Prompts that can never fit are refused before they are tokenised."""

from dataclasses import replace
from typing import cast

import msgspec
import pytest

from parrotserve.criteria import Objective
from parrotserve.engines.base import Capability, EngineDescription
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.errors import ContextExceeded, TransformFailed
from parrotserve.ids import RequestId, TenantId, VariableId
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.runtime import render
from parrotserve.runtime.ahead import AheadSequences, Written
from parrotserve.runtime.render import Known, Late, Opening, Piece, Renderer, ToGenerate
from parrotserve.sampling import Sampling
from parrotserve.segments import Text
from parrotserve.transforms import Transform

ENGINE = EngineDescription(
    model="m", context_length=100, cache_tokens=100, page_tokens=1, credits=1, capabilities=frozenset(Capability)
)
TOO_LONG = "x" * 901  # in tokens of at most nine bytes


class Untouched(FakeTokenizer):
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        raise AssertionError("tokenised")


def opening(*pieces: Piece) -> Opening:
    output = ToGenerate(Sampling(seed=0), stream=False, delivered=())
    return Opening(
        request=RequestId("r"),
        epoch=1,
        model="m",
        objective=Objective.LATENCY,
        tenant=TenantId("t"),
        pieces=(*pieces, output),
        ahead=False,
    )


def renderer(tokenizer: FakeTokenizer) -> Renderer:
    return Renderer(cast("Tokenizer", tokenizer), None)


@pytest.mark.parametrize("pieces", [(Text(TOO_LONG),), (Known(TOO_LONG, ()),), (Text("x" * 500), Known("y" * 500, ()))])
async def test_a_prompt_that_is_too_long_whatever_its_tokens_is_refused_untokenised(pieces: tuple[Piece, ...]):
    with pytest.raises(ContextExceeded, match="at least 1"):
        await renderer(Untouched()).open(opening(*pieces), ENGINE)


async def test_where_the_cache_is_what_is_small_its_setting_is_named():
    small = msgspec.structs.replace(ENGINE, cut_by_cache=True)
    with pytest.raises(ContextExceeded, match=r"all that the KV cache holds\. Raise kv_memory"):
        await renderer(Untouched()).open(opening(Text(TOO_LONG)), small)


async def test_what_a_transform_may_shorten_is_looked_at():
    short = Known(TOO_LONG, (Transform("truncate", (3,)),))
    command = await renderer(FakeTokenizer()).open(opening(short), ENGINE)
    assert len(command.segments) == 2


class Counting(FakeTokenizer):
    """Counts the characters that are made into tokens."""

    read = 0

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        self.read += len(text)
        return super().encode(text, special=special)


MANY = [Known("y" * 30, (Transform("strip"),))] * 1000
HUGE = [Known("y" * 10_000, (Transform("strip"),))] * 3
WHITE = [Known(" " * 200, (Transform("lines", (1, 9)),))] * 1000


@pytest.mark.parametrize("pieces", [MANY, HUGE, WHITE], ids=["many", "huge", "white"])
async def test_no_more_is_tokenised_than_there_is_room_for(pieces: list[Piece]):
    tokenizer = Counting()
    writing = renderer(tokenizer)
    for attempt in (
        writing.open(opening(Text("Read: "), *pieces), ENGINE),
        writing.beginning(pieces, ENGINE),
    ):
        with pytest.raises(ContextExceeded, match=r"at least 1\d\d tokens|at least 1\d{3} tokens"):
            await attempt
        assert tokenizer.read < 2 * ENGINE.context_length
        tokenizer.read = 0


async def test_nor_when_it_runs_ahead_or_goes_to_an_engine_that_reads_texts():
    tokenizer = Counting()
    writing = renderer(tokenizer)
    early = replace(opening(*MANY, Late(VariableId("v"), ())), ahead=True)
    sequences = AheadSequences()
    sequences.begin(early, writing.tokenizer, writing.prompt(ENGINE))
    sequence = sequences.find(early.request, early.epoch)
    assert sequence is not None
    with pytest.raises(ContextExceeded):
        sequence.go_on(lambda _: Written("", whole=False))
    assert tokenizer.read < 2 * ENGINE.context_length
    reads_texts = msgspec.structs.replace(ENGINE, capabilities=frozenset())
    with pytest.raises(ContextExceeded):
        await writing.open(opening(*MANY), reads_texts)


async def test_transforms_of_a_request_look_through_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(render, "MOST_TRANSFORMED", 10_000)
    value, first, twice = "x\n" * 1000, Transform("lines", (1, 1)), (Transform("strip"), Transform("lines", (1, 1)))
    writing = renderer(FakeTokenizer())
    command = await writing.open(opening(*[Known(value, (first,))] * 5), ENGINE)
    assert len(command.segments) == 2
    for pieces in ([Known(value, (first,))] * 6, [Known(value, twice)] * 3):
        with pytest.raises(TransformFailed, match="would look through 12,000 characters"):
            await writing.open(opening(*pieces), ENGINE)
    late = replace(opening(*[Late(VariableId("v"), (first,))] * 6), ahead=True)
    sequences = AheadSequences()
    sequences.begin(late, writing.tokenizer, writing.prompt(ENGINE))
    sequence = sequences.find(late.request, late.epoch)
    assert sequence is not None
    with pytest.raises(TransformFailed, match="would look through 12,000 characters"):
        sequence.complete(lambda _: Written(value, whole=True))
