"""Small random models of every family and rotary scaling, to compare with transformers' own implementations."""

import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit" / "models"))
import tiny_models

LENGTH = 100
_STRETCHED = {"factor": 4.0, "original_max_position_embeddings": 32}
CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama with a head of its own": {"tied": False},
    "llama, linear": {"config": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}},
    "llama, llama3": {
        "config": {
            "rope_theta": 100.0,
            "rope_scaling": _STRETCHED | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        }
    },
    "llama, yarn": {"config": {"rope_theta": 100.0, "rope_scaling": _STRETCHED | {"rope_type": "yarn"}}},
    "mistral": {"tied": False, "config": {"model_type": "mistral", "sliding_window": None}},
    "qwen2": {"biased": True, "config": {"model_type": "qwen2"}},
    "qwen3": {"normed": True, "config": {"model_type": "qwen3", "head_dim": tiny_models.HEAD_DIM}},
}


def family_logits() -> list[dict[str, Any]]:
    """Each model, a prompt, and the logits after it."""
    prompt = random.Random("families").choices(range(len(tiny_models.vocabulary())), k=LENGTH)
    return [{"name": name, **case, "prompt": prompt, "logits": _logits(case, prompt)} for name, case in CASES.items()]


@torch.inference_mode()
def _logits(case: dict[str, Any], prompt: list[int]) -> list[float]:
    with TemporaryDirectory() as folder:
        files = tiny_models.write_case(Path(folder) / "model", case)
        model = AutoModelForCausalLM.from_pretrained(files.path, dtype=torch.float32, attn_implementation="eager")
        return [float(f"{value:.6g}") for value in model(torch.tensor([prompt])).logits[0, -1].tolist()]
