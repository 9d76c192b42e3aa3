"""Measures what bf16, int8 and int4 cost the real model in perplexity and likeliest tokens, next to PyTorch's bf16.

    python scripts/accuracy.py            prints, and writes benchmarks/results/accuracy.json

Runs in the environment of `make parity`. Perplexity is measured on documentation strings of Python's standard library.
PyTorch runs transformers' implementation of the model, which reads the same file by itself, in float32 and in bf16.
"""

import gc
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from golden import load_transformers
from next_tokens import WINDOW, Prediction, documentation_windows, joined, judged, predict

from parrotserve.engines.native.kernels import KernelsBackend, chosen_variant
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import WeightFormat, usable_cores
from parrotserve.models.config import load_config
from parrotserve.models.registry import DEFAULT_MODEL, resolve
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.models.weights import load_weights

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "accuracy.json"
TOKENS = 20_000
COMPARED_WINDOWS = 6  # of 1,000 tokens
MOST = {"bf16": 0.5, "int8": 1.5, "int4": 1.5}
"""Most percent by which perplexity may exceed that in float32."""
NEAR_TIE = 0.3
"""Difference of logits up to which two tokens count as nearly tied. Rounding to bf16 moves this model's logits by up to
half of this."""


@dataclass(frozen=True)
class Difference:
    """A position at which the likeliest token differs from that in float32."""

    position: int
    expected: int
    found: int
    gap: float
    """How much the expected token's logit exceeds the second likeliest's in float32."""
    found_is_second: bool


def main() -> None:
    files = resolve(DEFAULT_MODEL)
    windows = documentation_windows(load_tokenizer(files), TOKENS)
    config = load_config(files)
    weights = load_weights(files, config, four_bit=True)
    pages, threads = -(-WINDOW // 16), usable_cores()
    ours = {"float32": predict(ReferenceBackend(weights, config, pages=pages), windows)}
    for form in WeightFormat:
        backend = KernelsBackend(weights, config, pages=pages, threads=threads, form=form)
        ours[form] = predict(backend, windows)
        print(f"{form}: perplexity {ours[form].perplexity:.4f}", flush=True)
    del weights, backend
    gc.collect()
    few = windows[:COMPARED_WINDOWS]
    exact = predict_by_torch(torch.float32, files.path, few)
    theirs = predict_by_torch(torch.bfloat16, files.path, few)
    result = {
        "versions": versions(),
        "perplexity": perplexities(ours),
        "likeliest": {
            "positions": len(exact.likeliest),
            "parrot float32": agreement(exact, ours["float32"]),
            "parrot bf16": agreement(exact, ours["bf16"]),
            "parrot int8": agreement(exact, ours["int8"]),
            "parrot int4": agreement(exact, ours["int4"]),
            "torch bf16": agreement(exact, theirs),
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(tell(result))


@torch.inference_mode()
def predict_by_torch(dtype: torch.dtype, path: Path, windows: Sequence[list[int]]) -> Prediction:
    """What transformers' implementation predicts in these windows."""
    model = load_transformers(path).to(dtype)
    return joined(
        judged(model(torch.tensor([window[:-1]])).logits[0].float().numpy(), window[1:]) for window in windows
    )


def perplexities(ours: dict[str, Prediction]) -> dict[str, object]:
    """Perplexities with all weight formats, and by how many percent they exceed that with float32."""
    exact = ours["float32"].perplexity
    return {"tokens": TOKENS, "float32": round(exact, 4)} | {
        name: {"perplexity": round(one.perplexity, 4), "percent": round(100 * (one.perplexity / exact - 1), 3)}
        for name, one in ours.items()
        if name != "float32"
    }


def agreement(exact: Prediction, found: Prediction) -> dict[str, object]:
    """The number of positions with the same likeliest token, and a description of all others."""
    count = len(exact.likeliest)
    others = [
        Difference(
            position=int(at),
            expected=int(exact.likeliest[at]),
            found=int(found.likeliest[at]),
            gap=round(float(exact.gaps[at]), 4),
            found_is_second=bool(found.likeliest[at] == exact.second[at]),
        )
        for at in np.flatnonzero(exact.likeliest != found.likeliest[:count])
    ]
    return {
        "agreeing": count - len(others),
        "largest_gap": max((one.gap for one in others), default=0.0),
        "differences": [vars(one) for one in others],
    }


def tell(result: dict) -> bool:
    """Print everything. Returns whether something misses its bound."""
    perplexity, likeliest = result["perplexity"], result["likeliest"]
    print(f"perplexity of {TOKENS:,} tokens: float32 {perplexity['float32']}")
    missed = False
    for name, most in MOST.items():
        percent = perplexity[name]["percent"]
        missed = missed or percent > most
        print(f"  {name} {perplexity[name]['perplexity']}: {percent:+.3f} % (at most {most} %)")
    positions = likeliest.pop("positions")
    print(f"likeliest token equal to transformers' in float32, of {positions:,} positions:")
    for name, one in likeliest.items():
        print(f"  {name}: {one['agreeing']:,}; gaps of the others up to {one['largest_gap']}")
    for one in likeliest["parrot bf16"]["differences"]:
        print("    position {position}: {found}, not {expected}; gap {gap}".format(**one))
    fewer = likeliest["parrot bf16"]["agreeing"] < likeliest["torch bf16"]["agreeing"]
    return missed or fewer or likeliest["parrot bf16"]["largest_gap"] > NEAR_TIE


def versions() -> dict[str, str | None]:
    """The model and software that gave these results."""
    packages = ("torch", "transformers", "numpy")
    head = {"model": DEFAULT_MODEL, "python": platform.python_version(), "variant": chosen_variant()}
    return head | {p: version(p) for p in packages}


if __name__ == "__main__":
    main()
