"""Models of every family, with every rotary scaling, give transformers' logits on the reference backend."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.models.config import load_config
from parrotserve.models.weights import load_weights

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "golden" / "families.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["models"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_logits_equal_transformers(case: dict[str, Any], tmp_path: Path):
    files = tiny_models.write_case(tmp_path / "model", case)
    config = load_config(files)
    backend = ReferenceBackend(load_weights(files, config), config, pages=16)
    rows = SequenceRows(tokens=case["prompt"], start=0, pages=range(16), want_logits=True)
    batch, _ = build_batch([rows], backend.page_tokens)
    (logits,) = backend.step(batch)
    expected = np.array(case["logits"])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_cases_tell_their_differences_apart():
    logits = {case["name"]: tuple(case["logits"]) for case in CASES}
    assert logits.pop("mistral") == logits["llama with a head of its own"]  # one architecture under two names
    assert len(set(logits.values())) == len(logits) == 7
