"""The likeliest token without most of the head's products: to the bit what it is with all of them."""

from dataclasses import replace

import numpy as np
import pytest
from dense import random_weights, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import PAGE_TOKENS, KernelsBackend, variants
from parrotserve.engines.native.logits import FloatArray, Logits
from parrotserve.models.architecture import Family, ModelConfig
from parrotserve.models.weights import ModelWeights

pytestmark = pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")

every_variant = pytest.mark.parametrize("variant", variants())


def shape(*, hidden: int = 96, vocabulary: int = 150) -> ModelConfig:
    """One layer, so that nearly all is the head's."""
    return replace(tiny_config(Family.LLAMA, tied=False), layers=1, hidden=hidden, vocabulary=vocabulary)


def asked(
    weights: ModelWeights, config: ModelConfig, variant: str, rows: int, *, threads: int = 2
) -> tuple[StepBatch, KernelsBackend]:
    """A batch of so many sequences of one token each, and a backend for it."""
    sequences = [SequenceRows([row % config.vocabulary], 0, [row], True) for row in range(rows)]
    batch, _ = build_batch(sequences, PAGE_TOKENS)
    return batch, KernelsBackend(weights, config, pages=rows, threads=threads, variant=variant)


def told(logits: Logits) -> tuple[list[int], FloatArray]:
    return logits.likeliest.tolist(), logits.highest.copy()


def of(batch: StepBatch, likeliest_only: list[bool]) -> StepBatch:
    return replace(batch, likeliest_only=np.array(likeliest_only, dtype=np.bool_))


def both(weights: ModelWeights, config: ModelConfig, variant: str, rows: int = 20) -> tuple[FloatArray, FloatArray]:
    """The highest logits with all of them and without; their tokens are the same."""
    batch, backend = asked(weights, config, variant, rows)
    whole = told(backend.step(of(batch, [False] * rows)))
    few = told(backend.step(of(batch, [True] * rows)))
    sound = ~np.isnan(whole[1])
    assert [token for token, is_sound in zip(few[0], sound, strict=True) if is_sound] == [
        token for token, is_sound in zip(whole[0], sound, strict=True) if is_sound
    ]
    return whole[1], few[1]


@every_variant
@pytest.mark.parametrize(("hidden", "vocabulary"), [(96, 150), (16, 1), (48, 48), (80, 1000), (160, 333)])
def test_it_is_the_highest_of_all_to_the_bit(hidden: int, vocabulary: int, variant: str):
    config = shape(hidden=hidden, vocabulary=vocabulary)
    whole, few = both(random_weights(config), config, variant, rows=100)
    assert whole.tobytes() == few.tobytes()


@every_variant
def test_of_equal_ones_it_is_the_lowest(variant: str):
    config = shape()
    weights = random_weights(config)
    assert weights.head is not None
    copies = np.ascontiguousarray(np.tile(weights.head[:30], (5, 1)))
    batch, backend = asked(replace(weights, head=copies), config, variant, 20)
    likeliest, highest = told(backend.step(of(batch, [True] * 20)))
    assert max(likeliest) < 30
    assert np.array_equal(highest, backend.step(of(batch, [False] * 20)).rows.max(axis=1))


@every_variant
def test_outputs_of_which_more_is_wanted_have_all_logits_whatever_others_want(variant: str):
    config, rows = shape(), 30
    batch, backend = asked(random_weights(config), config, variant, rows)
    whole = backend.step(of(batch, [False] * rows)).rows.copy()
    only = [row % 3 == 0 for row in range(rows)]
    mixed = backend.step(of(batch, only))
    wanted = ~np.array(only)
    assert np.array_equal(mixed.rows[wanted], whole[wanted])
    assert np.array_equal(mixed.likeliest, whole.argmax(axis=1))
    assert np.array_equal(mixed.highest, whole.max(axis=1))
    found = mixed.candidates([1], [1.0])
    assert found.ids[0, 0] == whole[1].argmax()


def plain(head: FloatArray, row: FloatArray) -> tuple[ModelWeights, ModelConfig]:
    """A model whose logits are the products of `head`, [vocabulary, hidden], and `row`, [hidden], whatever it reads."""
    vocabulary, hidden = head.shape
    config = shape(hidden=hidden, vocabulary=vocabulary)
    weights = random_weights(config)
    (layer,) = weights.layers
    silent = replace(layer, o=np.zeros_like(layer.o), down=np.zeros_like(layer.down))
    ones = np.ones_like(weights.embedding)
    return replace(weights, layers=(silent,), embedding=ones, head=head, final_norm=row), config


def steps(whole: float) -> FloatArray:
    """Two groups of inputs, one of each as large as int8 can tell, and the others this many times as large as its
    steps."""
    group = np.full(32, whole / 127, dtype=np.float32)
    group[0] = 1.0
    return np.tile(group, 2)


@every_variant
def test_an_output_whose_weights_all_lose_by_rounding_beats_one_whose_weights_all_gain(variant: str):
    """In int8, 10.47 steps become ten, and nine tenths of 10.53 and 9.53 become eleven and ten."""
    lost, gained = steps(10.47), steps(9.53)
    gained[[k for k in range(64) if k % 32 and k % 10]] = 10.53 / 127
    head = np.zeros((64, 64), dtype=np.float32)  # the two are not looked at together
    head[3], head[50] = gained, lost
    assert head.sum(axis=1).argmax() == 50
    batch, backend = asked(*plain(head, np.ones(64, dtype=np.float32)), variant, 4)
    assert backend.step(of(batch, [True] * 4)).likeliest.tolist() == [50] * 4


@every_variant
def test_an_output_that_meets_inputs_that_lose_by_rounding_beats_one_that_meets_those_that_gain(variant: str):
    row = steps(10.47)
    gains = [k for k in range(64) if k % 2 == 0 and k % 32]
    row[gains] = 10.53 / 127
    head = np.zeros((64, 64), dtype=np.float32)
    head[3, gains] = 0.98
    head[50, [k + 1 for k in gains]] = 1.0
    assert (head @ row).argmax() == 50
    batch, backend = asked(*plain(head, row), variant, 4)
    assert backend.step(of(batch, [True] * 4)).likeliest.tolist() == [50] * 4


@every_variant
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-18, 1e18, 1e30])
def test_it_holds_where_numbers_are_hardly_numbers(size: float, variant: str):
    config = shape()
    weights = random_weights(config)
    whole, few = both(replace(weights, final_norm=weights.final_norm * np.float32(size)), config, variant)
    assert np.array_equal(whole, few)


@every_variant
def test_what_is_no_number_shows(variant: str):
    config = shape()
    weights = random_weights(config)
    gains = weights.final_norm.copy()
    gains[5] = np.inf
    whole, few = both(replace(weights, final_norm=gains), config, variant)
    assert np.isnan(whole).all()
    assert np.isnan(few).all()


@every_variant
def test_the_number_of_threads_changes_nothing(variant: str):
    config = shape(vocabulary=1000)
    weights = random_weights(config)
    found = []
    for threads in (1, 2, 3):
        batch, backend = asked(weights, config, variant, 40, threads=threads)
        found.append(told(backend.step(of(batch, [True] * 40))))
    assert all(tokens == found[0][0] and np.array_equal(highest, found[0][1]) for tokens, highest in found)


@settings(max_examples=60, deadline=None)
@given(
    variant=st.sampled_from(variants() or ("",)),
    hidden=st.sampled_from([16, 32, 48, 80, 112]),
    vocabulary=st.integers(1, 200),
    rows=st.integers(1, 40),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([1e-6, 0.01, 1.0, 30.0]),
    alike=st.sampled_from([0.0, 1e-4, 1e-2, 1.0]),
    outlier=st.sampled_from([1.0, 30.0, 1000.0]),
)
def test_it_holds_for_any_head_however_close_its_logits_are(
    variant: str, hidden: int, vocabulary: int, rows: int, seed: int, spread: float, alike: float, outlier: float
):
    """All of its outputs are near one of them, by a part `alike`; an input is much larger than the others."""
    config = shape(hidden=hidden, vocabulary=vocabulary)
    weights = random_weights(config, seed)
    assert weights.head is not None
    head = (weights.head[:1] + alike * weights.head) * np.float32(spread)
    gains = weights.final_norm.copy()
    gains[seed % hidden] *= outlier
    whole, few = both(replace(weights, head=head, final_norm=gains), config, variant, rows)
    assert np.array_equal(whole, few)
