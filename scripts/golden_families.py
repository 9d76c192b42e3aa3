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


def _shape(heads: int, kv_heads: int, head_dim: int, hidden: int = 96) -> dict[str, int]:
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "hidden": hidden}


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
    "smollm's heads: 3 queries a KV head, of 64": {"calm": True, "shape": _shape(9, 3, 64, hidden=144)},
    "llama, 1 query a KV head, of 80": {"calm": True, "shape": _shape(2, 2, 80)},
    "llama, 8 queries a KV head, of 96": {"calm": True, "tied": False, "shape": _shape(8, 1, 96)},
    "mistral, 4 queries a KV head, of 128": {
        "calm": True,
        "tied": False,
        "shape": _shape(8, 2, 128),
        "config": {"model_type": "mistral", "sliding_window": None},
    },
    "qwen2, 7 queries a KV head, of 64, yarn": {
        "calm": True,
        "biased": True,
        "shape": {"heads": 7, "kv_heads": 1, "head_dim": 64, "hidden": 448},
        "config": {"model_type": "qwen2", "rope_theta": 100.0, "rope_scaling": _STRETCHED | {"rope_type": "yarn"}},
    },
    "qwen3, 2 queries a KV head, of 128": {
        "calm": True,
        "normed": True,
        "shape": _shape(4, 2, 128),
        "config": {"model_type": "qwen3"},
    },
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
