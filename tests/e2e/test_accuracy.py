"""What the kernels' rounding costs the real model: a short form of scripts/accuracy.py, which measures all of it."""

import sys
from pathlib import Path

import pytest

from parrotserve.engines.native.kernels import KernelsBackend, variants
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import WeightFormat, usable_cores
from parrotserve.models.config import load_config
from parrotserve.models.registry import DEFAULT_MODEL, resolve
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.models.weights import load_weights

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from next_tokens import documentation_windows, predict

pytestmark = [
    pytest.mark.model,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here"),
]

TOKENS = 2000
NEAR_TIE = 0.3


def test_perplexity_stays_near_that_of_float32_and_other_choices_are_near_ties():
    files = resolve(DEFAULT_MODEL)
    config = load_config(files)
    weights = load_weights(files, config, four_bit=True)
    windows = documentation_windows(load_tokenizer(files), TOKENS)
    exact = predict(ReferenceBackend(weights, config, pages=64), windows)
    for form, percent in ((WeightFormat.BF16, 0.5), (WeightFormat.INT8, 1.5), (WeightFormat.INT4, 1.5)):
        backend = KernelsBackend(weights, config, pages=64, threads=usable_cores(), form=form)
        found = predict(backend, windows)
        assert found.perplexity <= exact.perplexity * (1 + percent / 100), form
        if form is WeightFormat.BF16:
            assert exact.gaps[found.likeliest != exact.likeliest].max() <= NEAR_TIE
