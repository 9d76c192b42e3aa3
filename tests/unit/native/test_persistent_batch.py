"""Batches that go on: while the same sequences decode, the last one is moved on and not built anew."""

import pytest
from token_backend import Bench, fill, generate

from parrotserve.criteria import Objective
from parrotserve.engines.base import Cancel
from parrotserve.engines.native import persistent_batch
from parrotserve.ids import RequestId


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences each batch had that was built from nothing."""
    counts: list[int] = []
    build = persistent_batch.build_batch

    def counting(rows, page_tokens, **options):  # type: ignore[no-untyped-def]
        counts.append(len(rows))
        return build(rows, page_tokens, **options)

    monkeypatch.setattr(persistent_batch, "build_batch", counting)
    return counts


def texts(bench: Bench, names: str) -> list[str]:
    return [bench.text(name) for name in names]


def alone(prompt: str, tokens: int) -> str:
    bench = Bench()
    bench.open("a", fill(prompt), generate(tokens, ignore_eos=True))
    bench.run()
    return bench.text("a")


def test_sequences_that_decode_together_share_one_batch(builds: list[int]):
    bench = Bench(speculate=False)
    for name in "abc":
        bench.open(name, fill("a common prefix, and " + name), generate(60, ignore_eos=True))
    bench.run()
    assert len(builds) <= 4
    assert len(bench.backend.steps) >= 60
    assert texts(bench, "abc") == [alone("a common prefix, and " + name, 60) for name in "abc"]


def test_a_batch_is_built_anew_when_its_room_for_pages_is_used_up(builds: list[int]):
    bench = Bench(speculate=False)
    bench.open("a", fill("prompt"), generate(300, ignore_eos=True))
    bench.run()
    assert 4 <= len(builds) <= 8
    assert bench.text("a") == alone("prompt", 300)


def test_whoever_joins_or_leaves_changes_the_batch(builds: list[int]):
    bench = Bench()
    bench.open("a", fill("first"), generate(50, ignore_eos=True))
    bench.open("b", fill("second"), generate(20, ignore_eos=True))
    for _ in range(10):
        bench.step()
    bench.open("c", fill("third"), generate(30, ignore_eos=True))
    for _ in range(10):
        bench.step()
    bench.core.handle(Cancel(RequestId("c"), 1))
    bench.run()
    assert max(builds) == 3
    assert texts(bench, "ab") == [alone("first", 50), alone("second", 20)]


def test_a_sequence_that_lost_its_pages_and_found_them_again_reads_the_new_ones():
    # As many pages as two of the three need: the last one is thrown out again and again.
    bench = Bench(pages=22, context=40)
    for place, name in enumerate("abc"):
        objective = Objective.LATENCY if place == 0 else Objective.THROUGHPUT
        bench.open(name, fill("prompt " + name), generate(30, ignore_eos=True), objective=objective)
    bench.run()
    assert texts(bench, "abc") == [alone("prompt " + name, 30) for name in "abc"]


def test_equal_texts_end_up_in_equal_pages():
    bench = Bench()
    for name in "ab":
        bench.open(name, fill("the same"), generate(40, ignore_eos=True))
        bench.step()
    bench.run()
    assert texts(bench, "ab") == [alone("the same", 40)] * 2
