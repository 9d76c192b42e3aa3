"""What the native engine promises beyond the contract, in its own process: nothing but speed depends on settings."""

import random
from collections.abc import Sequence

import pytest
from engine_driver import Driver, Result, generate
from engines_here import StartNative
from tiny_model import CONTEXT

from parrotserve.engines.base import EndStatus, Fill, Generate
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.kernels import variants
from parrotserve.engines.native.settings import PAGE_TOKENS, BackendName, WeightFormat
from parrotserve.errors import EngineRefused

TOKENIZER = FakeTokenizer()


def workload(count: int) -> list[tuple[Fill | Generate, ...]]:
    """Prompts of all lengths, most of them with a beginning that others have too."""
    words = random.Random(3)
    starts = ["", "A common beginning, longer than a page. ", "Another one, which is longer than that. " * 3]
    prompts = [words.choice(starts) + "x" * words.randrange(1, 60) + str(n) for n in range(count)]
    return [
        (Fill(tokens=tuple(TOKENIZER.encode(prompt))), generate(20, temperature=0.8, seed=n, ignore_eos=True))
        for n, prompt in enumerate(prompts)
    ]


async def run_all(start_native: StartNative, sequences: Sequence[tuple[Fill | Generate, ...]], **settings: object):
    driver = Driver(await start_native(**settings), TOKENIZER)
    opened = [await driver.open(*segments) for segments in sequences]
    results: list[Result] = [await driver.ended(sequence) for sequence in opened]
    await driver.close()
    return results


async def test_texts_do_not_depend_on_chunks_grouping_sharing_or_batches(
    start_native: StartNative, backend: BackendName
):
    sequences = workload(16)
    expected = [result.tokens for result in await run_all(start_native, sequences, backend=backend)]
    for settings in (
        {"prefill_chunk": 16},
        {"prefill_chunk": 64, "group": False},
        {"share": False},
        {"max_running": 1},
    ):
        results = await run_all(start_native, sequences, backend=backend, **settings)
        assert [result.tokens for result in results] == expected, settings


@pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")
async def test_weights_in_int8_keep_the_promise(start_native: StartNative):
    sequences = workload(12)
    int8 = {"backend": BackendName.KERNELS, "weights": WeightFormat.INT8}
    expected = [result.tokens for result in await run_all(start_native, sequences, **int8)]
    for settings in ({"prefill_chunk": 16, "threads": 2}, {"group": False}, {"share": False, "max_running": 1}):
        results = await run_all(start_native, sequences, **int8, **settings)
        assert [result.tokens for result in results] == expected, settings


@pytest.mark.parametrize("weights", [WeightFormat.INT8, WeightFormat.INT4])
async def test_quantised_weights_are_refused_where_nothing_can_compute_with_them(
    start_native: StartNative, weights: WeightFormat
):
    with pytest.raises(EngineRefused, match=f"{weights} need the kernels backend"):
        await start_native(backend=BackendName.REFERENCE, weights=weights)


@pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")
async def test_weights_in_int4_are_refused_where_the_file_has_none(start_native: StartNative):
    with pytest.raises(EngineRefused, match=r"has none: use a GGUF file in Q4_0 or Q4_1, or set weights to int8"):
        await start_native(backend=BackendName.KERNELS, weights=WeightFormat.INT4)


async def test_two_hundred_sequences_pass_through_a_cache_for_a_few(
    start_native: StartNative, backend: BackendName, page_bytes: int
):
    sequences = workload(200)
    driver = Driver(await start_native(backend=backend, kv_bytes=20 * page_bytes), TOKENIZER)
    opened = [await driver.open(*segments) for segments in sequences]
    results = [await driver.ended(sequence) for sequence in opened]
    heartbeat = await driver.next_heartbeat()
    assert (heartbeat.running, heartbeat.waiting, heartbeat.used_pages) == (0, 0, 0)
    assert heartbeat.free_pages + heartbeat.cached_pages == 20
    await driver.close()
    assert [result.status for result in results] == [EndStatus.DONE] * 200
    few = await run_all(start_native, sequences[::20], backend=backend)
    assert [result.tokens for result in results[::20]] == [result.tokens for result in few]


async def test_a_cache_for_little_more_than_one_sequence_finishes_all(
    start_native: StartNative, backend: BackendName, page_bytes: int
):
    longest = max(len(segments[0].tokens or ()) for segments in workload(12) if isinstance(segments[0], Fill)) + 20
    pages = int(longest / PAGE_TOKENS * 1.2) + 1
    results = await run_all(start_native, workload(12), backend=backend, kv_bytes=pages * page_bytes)
    assert [result.status for result in results] == [EndStatus.DONE] * 12
    expected = await run_all(start_native, workload(12), backend=backend)
    assert [result.tokens for result in results] == [result.tokens for result in expected]


async def test_the_context_is_the_smaller_of_model_and_cache(
    start_native: StartNative, backend: BackendName, page_bytes: int
):
    assert (await start_native(backend=backend)).describe().context_length == CONTEXT
    small = (await start_native(backend=backend, kv_bytes=10 * page_bytes)).describe()
    assert small.context_length == small.cache_tokens == 10 * PAGE_TOKENS
    assert small.model == "tiny"


async def test_a_shared_prefix_is_computed_once(start_native: StartNative):
    driver = Driver(await start_native(), TOKENIZER)
    prefix = driver.fill("The same long instruction for every one of them. " * 4)
    opened = [await driver.open(prefix, driver.fill(str(n)), generate(2)) for n in range(5)]
    cached = [(await driver.ended(sequence)).usage.cached_tokens for sequence in opened]
    assert sorted(cached) == [0] + [len(prefix.tokens or ()) // PAGE_TOKENS * PAGE_TOKENS] * 4
    await driver.close()


async def test_what_is_public_is_shared_by_all_and_nothing_after_it(start_native: StartNative):
    driver = Driver(await start_native(), TOKENIZER)
    public = driver.fill("A long instruction that an operator published. " * 4)
    private = driver.fill("And what Ann alone says, which is nobody else's business at all.")
    count = len(public.tokens or ())

    async def cached(tenant: str, *segments: Fill) -> int:
        return (await driver.run(*segments, generate(2), salt=tenant, public=count)).usage.cached_tokens

    assert await cached("ann", public, private) == 0
    assert await cached("ann", public, private) > count
    assert await cached("bob", public, private) == count // PAGE_TOKENS * PAGE_TOKENS
    texts = [(await driver.run(public, private, generate(8), salt=tenant, public=shared)).text
             for tenant, shared in (("ann", count), ("bob", count), ("eve", 0))]  # fmt: skip
    assert len(set(texts)) == 1
    await driver.close()


@pytest.mark.parametrize("salt", ["", "tenant"])
async def test_a_later_turn_extends_the_earlier_sequence(start_native: StartNative, salt: str):
    driver = Driver(await start_native(), TOKENIZER)
    turn = driver.fill("A question with some words in it?")
    first = await driver.run(turn, generate(40, ignore_eos=True), salt=salt)
    history = Fill(tokens=(*(turn.tokens or ()), *first.tokens, *TOKENIZER.encode(" And then?")))
    second = await driver.run(history, generate(2), salt=salt)
    assert second.usage.cached_tokens >= (len(turn.tokens or ()) + 39) // PAGE_TOKENS * PAGE_TOKENS
    stranger = await driver.run(history, generate(2), salt="somebody else")
    assert stranger.usage.cached_tokens == 0
    await driver.close()
