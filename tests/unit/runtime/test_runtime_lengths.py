"""Prompts that can never fit are refused before they are tokenised."""

from typing import cast

import msgspec
import pytest

from parrotserve.criteria import Objective
from parrotserve.engines.base import Capability, EngineDescription
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.errors import ContextExceeded
from parrotserve.ids import RequestId, TenantId
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.runtime.render import Known, Opening, Piece, Renderer, ToGenerate
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
