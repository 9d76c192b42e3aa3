"""Drawing from candidates: the same tokens as from whole rows, on every backend, and nearly always enough."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from dense import random_weights, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.draw import Draw, Seen
from parrotserve.engines.native.kernels import PAGE_TOKENS, KernelsBackend, variants
from parrotserve.engines.native.logits import (
    CANDIDATES,
    MASS_ERROR,
    Candidates,
    DrawSettings,
    FloatArray,
    Logits,
    WholeLogits,
)
from parrotserve.engines.native.sampler import draw_from_row, sample
from parrotserve.engines.native.shortlist import draw_from_candidates
from parrotserve.engines.native.uniform import uniform
from parrotserve.models.architecture import Family
from parrotserve.sampling import Sampling

SIZES = (2, CANDIDATES, CANDIDATES + 1, 1000)
EOS = (0, 1)


class Inexact:
    """Logits whose masses are off by as much as they may be."""

    def __init__(self, rows: FloatArray, error: float) -> None:
        self._exact = WholeLogits(rows)
        self._error = error
        self.rows, self.likeliest, self.highest = rows, self._exact.likeliest, self._exact.highest

    def candidates(self, outputs: Sequence[int], scales: Sequence[float]) -> Candidates:
        found = self._exact.candidates(outputs, scales)
        found.masses[:] *= 1 + self._error
        return found


@st.composite
def rows_of_logits(draw: st.DrawFn) -> FloatArray:
    """Rows with many ties, few far-away tokens, and everything between."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from(SIZES))
    spread, digits = draw(st.sampled_from([0.001, 1.0, 8.0])), draw(st.sampled_from([0, 1, 5]))
    return (generator.standard_normal((3, size)) * spread).round(digits).astype(np.float32)


@st.composite
def questions(draw: st.DrawFn, vocabulary: int) -> Draw:
    tokens = st.integers(0, vocabulary - 1)
    sampling = Sampling(
        temperature=draw(st.sampled_from([0.0, 0.05, 0.7, 1.0, 20.0])),
        top_k=draw(st.sampled_from([0, 0, 1, 7, 500])),
        top_p=draw(st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.3])),
        min_p=draw(st.sampled_from([0.0, 0.0, 0.05, 1.0])),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 1.5, -2.0])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, 0.5])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.3, 0.5])),
        logit_bias=draw(st.dictionaries(tokens, st.sampled_from([-100.0, -1.0, 3.0, 100.0]), max_size=3)),
    )
    allowed = np.random.default_rng(draw(st.integers(0, 99))).random(vocabulary) < draw(st.sampled_from([0.01, 0.5]))
    allowed[draw(tokens)] = True
    return Draw(
        sampling,
        position=draw(st.integers(0, 1000)),
        banned=draw(st.sampled_from([(), (), EOS])),
        seen=Seen(draw(st.sets(tokens, max_size=40)), draw(st.lists(tokens, max_size=40))),
        allowed=draw(st.sampled_from([None, None, allowed])),
    )


@pytest.mark.timeout(1200)  # of a long search
@given(st.data(), rows_of_logits(), st.sampled_from([-MASS_ERROR, 0.0, MASS_ERROR]))
def test_candidates_decide_as_the_whole_row_does(data: st.DataObject, rows: FloatArray, error: float):
    draws = {output: data.draw(questions(rows.shape[1])) for output in range(len(rows))}
    numbers = {output: uniform(7, draw.position) for output, draw in draws.items()}
    decided = draw_from_candidates(Inexact(rows, error), draws, numbers)
    expected = {output: draw_from_row(rows[output], draws[output], numbers[output]) for output in decided}
    assert decided == expected


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.95}, {"top_k": 40}, {"min_p": 0.05}, {"repetition_penalty": 1.1}])
def test_candidates_nearly_always_decide(sampling: dict[str, float]):
    generator = np.random.default_rng(0)
    # About as peaked as a language model's: half of the mass on a token or two.
    rows = (generator.standard_normal((200, 5000)) * 3.5).astype(np.float32)
    draws = {
        output: Draw(Sampling(temperature=0.7, seed=output, **sampling), position=3, seen=Seen([5, 6]))  # type: ignore[arg-type]
        for output in range(200)
    }
    numbers = {output: uniform(output, 3) for output in draws}
    assert len(draw_from_candidates(WholeLogits(rows), draws, numbers)) >= 190


def test_greedy_rules_are_decided_without_the_whole_row():
    rows = np.random.default_rng(0).standard_normal((1, 5000)).astype(np.float32)
    for draw in (
        Draw(Sampling(), position=0, banned=EOS),
        Draw(Sampling(logit_bias={4: 50.0}), position=0),
        Draw(Sampling(presence_penalty=2.0), position=5, seen=Seen(output=[int(rows.argmax())] * 5)),
        Draw(Sampling(), position=0, allowed=np.arange(5000) % 2 == 0),
    ):
        assert draw_from_candidates(WholeLogits(rows), {0: draw}, {0: 0.0}) == {0: draw_from_row(rows[0], draw, 0.0)}


# --- What the kernels say of their logits --------------------------------------------------------------------

HINTED = 0.8
SCALES = [0.05, 1 / HINTED, 20.0]


@pytest.fixture(params=variants())
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@functools.cache
def kernel_logits(variant: str, vocabulary: int, *, spread: float = 1.0, damaged: bool = False) -> Logits:
    """Logits of three outputs, with ties; of two it was said how they would be drawn from."""
    config = replace(tiny_config(Family.LLAMA, tied=False), hidden=32, vocabulary=vocabulary)
    weights = random_weights(config)
    assert weights.head is not None
    weights.head[:] *= spread
    weights.head[vocabulary // 2 :] = weights.head[: vocabulary - vocabulary // 2]
    if damaged:
        weights.head[vocabulary - 1] = np.nan
    backend = KernelsBackend(weights, config, pages=8, threads=2, variant=variant)
    hints = (1 / HINTED, 0.0, 1 / HINTED)
    rows = [SequenceRows([token], 0, [token], want_logits=True, scale=scale) for token, scale in enumerate(hints)]
    batch, _ = build_batch(rows, PAGE_TOKENS)
    return backend.step(batch)


@pytest.mark.parametrize("vocabulary", [50, CANDIDATES + 3, 20_011])
def test_kernels_find_what_a_full_sort_finds(variant: str, vocabulary: int):
    logits = kernel_logits(variant, vocabulary)
    whole = WholeLogits(logits.rows)
    assert logits.likeliest.tolist() == whole.likeliest.tolist()
    assert logits.highest.tolist() == whole.highest.tolist()
    found, expected = logits.candidates([2, 0, 1], SCALES), whole.candidates([2, 0, 1], SCALES)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.values.tolist() == expected.values.tolist()
    np.testing.assert_allclose(found.masses, expected.masses, rtol=MASS_ERROR / 2)


def test_kernels_notice_logits_that_are_no_numbers(variant: str):
    logits = kernel_logits(variant, 50, damaged=True)
    assert np.isnan(logits.highest).all()
    assert drawn(logits, Sampling(temperature=1.0), [0.1, 0.5, 0.9]) == [None] * 3


@pytest.mark.timeout(1200)
@given(st.data())
def test_sampling_on_kernels_is_sampling_from_their_rows(data: st.DataObject):
    for variant in variants():
        logits = kernel_logits(variant, 1000)
        draws = {output: data.draw(questions(1000)) for output in range(3)}
        tokens = {output: token for output, (token, _) in sample(logits, draws).items()}
        numbers = {output: uniform(0, draw.position) for output, draw in draws.items()}
        assert tokens == {
            output: draw_from_row(logits.rows[output], draw, numbers[output]) for output, draw in draws.items()
        }


@pytest.mark.parametrize("vocabulary", [50, 1000, 20_011])
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_kernels_draw_what_numpy_draws_from_whole_rows(variant: str, vocabulary: int, spread: float):
    logits = kernel_logits(variant, vocabulary, spread=spread)
    samplings = [
        Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        for temperature in (1e-300, 0.05, HINTED, 3.0, 50.0)
        for top_k in (0, 40, 500, 2**40)
        for top_p in (1.0, 0.95, 0.5, 1e-9)
        for min_p in (0.0, 0.1, 1.0)
    ]
    ordinary = undecided = 0
    for index, sampling in enumerate(samplings):
        numbers = [0.0, uniform(index, 0), 1.0 - 2.0**-53]
        for output, token, number in zip(range(3), drawn(logits, sampling, numbers), numbers, strict=True):
            expected = draw_from_row(logits.rows[output], Draw(sampling, position=0), number)
            assert token in (None, expected), (sampling, number)
            # What lies at the very edge of what is kept may be left to NumPy; one half of a tie of two is there.
            if number < 0.999 and sampling.min_p < 1.0 and sampling.temperature > 1e-3:
                ordinary, undecided = ordinary + 1, undecided + (token is None)
    assert undecided <= 0.05 * ordinary


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.95}, {"top_k": 40, "top_p": 0.9}, {"min_p": 0.05}])
def test_kernels_draw_the_likely_and_the_unlikely_where_numpy_does(variant: str, sampling: dict[str, float]):
    logits = kernel_logits(variant, 20_011, spread=8.0)
    question = Draw(Sampling(temperature=HINTED, **sampling), position=0)  # type: ignore[arg-type]
    for step in range(100):
        numbers = [uniform(step, output) for output in range(3)]
        expected = [draw_from_row(row, question, number) for row, number in zip(logits.rows, numbers, strict=True)]
        assert drawn(logits, question.sampling, numbers) == expected


def drawn(logits: Logits, sampling: Sampling, numbers: Sequence[float]) -> list[int | None]:
    """The tokens at these numbers, of one output each."""
    settings = DrawSettings(range(len(numbers)), [sampling] * len(numbers))
    settings.starts[:] = [start_for(number, position=5) for number in numbers]
    return logits.draw(settings, np.full(len(numbers), 5, dtype=np.int32))


def start_for(number: float, position: int) -> int:
    """Where a generator starts that gives this number at this position: SplitMix64 backwards."""
    word, words = int(number * 2**53) << 11, 2**64
    word = unshifted(word, 31) * pow(0x94D049BB133111EB, -1, words) % words
    word = unshifted(word, 27) * pow(0xBF58476D1CE4E5B9, -1, words) % words
    return (unshifted(word, 30) - (position + 1) * 0x9E3779B97F4A7C15) % words


def unshifted(word: int, shift: int) -> int:
    """The number that is this one, when it and itself shifted right are combined by exclusive or."""
    found = word
    for _ in range(64 // shift):
        found = word ^ (found >> shift)
    return found
