"""Models of every family, head shape and rotary scaling give transformers' logits: the reference to float32's
precision, every variant of the kernels to that of bf16 and of int8."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from parrotserve.engines.native.backend import Backend
from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.kernels import KernelsBackend, variants
from parrotserve.engines.native.logits import FloatArray
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import WeightFormat
from parrotserve.models.config import load_config
from parrotserve.models.weights import load_weights

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "golden" / "families.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["models"]
CALM = [case for case in CASES if case.get("calm")]
"""Those whose weights are of a size that leaves bf16 something to hold."""
TOLERANCES = {WeightFormat.BF16: 0.02, WeightFormat.INT8: 0.08}
"""Of the largest logit, in bf16 and in int8."""


def logits(backend: Backend, case: dict[str, Any]) -> FloatArray:
    rows = SequenceRows(tokens=case["prompt"], start=0, pages=range(16), want_logits=True)
    batch, _ = build_batch([rows], backend.page_tokens)
    (found,) = backend.step(batch).rows
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_logits_equal_transformers(case: dict[str, Any], tmp_path: Path):
    files = tiny_models.write_case(tmp_path / "model", case)
    config = load_config(files)
    backend = ReferenceBackend(load_weights(files, config), config, pages=16)
    expected = np.array(case["logits"])
    np.testing.assert_allclose(logits(backend, case), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")
@pytest.mark.parametrize("form", TOLERANCES)
@pytest.mark.parametrize("case", CALM, ids=lambda case: case["name"])
def test_logits_of_the_kernels_are_close_to_transformers(case: dict[str, Any], form: WeightFormat, tmp_path: Path):
    files = tiny_models.write_case(tmp_path / "model", case)
    config = load_config(files)
    expected = np.array(case["logits"])
    for variant in variants():
        weights = load_weights(files, config)
        backend = KernelsBackend(weights, config, pages=16, threads=1, variant=variant, form=form)
        difference = np.abs(logits(backend, case) - expected).max()
        assert difference <= TOLERANCES[form] * np.abs(expected).max(), variant


def test_the_cases_tell_their_differences_apart():
    told = {case["name"]: tuple(case["logits"]) for case in CASES}
    assert told.pop("mistral") == told["llama with a head of its own"]  # one architecture under two names
    assert len(set(told.values())) == len(told) == len(CASES) - 1 == 13
