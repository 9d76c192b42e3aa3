"""vLLM's server on this machine's CPU, at its best settings for a model of this size: `serve_vllm.py PORT`.

What follows the port is handed to vLLM.
"""

import json
import os
import sys

from places import hugging_face_folder, python_of

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

NGRAM = (
    "--speculative-config",
    json.dumps({"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_min": 2, "prompt_lookup_max": 4}),
)
"""Options for speculative decoding by lookup in the text."""


def command(port: int, *more: str) -> list[str]:
    """What to run; `more` are further options of vLLM's."""
    return [
        str(python_of("vllm").with_name("vllm")),
        *("serve", str(hugging_face_folder())),
        *("--served-model-name", "smollm2-135m"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", "8192"),
        *("--enable-prefix-caching", "--max-num-seqs", "128"),
        *more,
    ]


def environment() -> dict[str, str]:
    """Every core for the model, 4 GiB of KV unless it is set otherwise, nothing fetched, and no step held for hung that
    began before a rest."""
    return {
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "86400",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        **os.environ,
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{THREADS - 1}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


if __name__ == "__main__":
    if not sys.argv[1:] or not sys.argv[1].isdecimal():
        sys.exit(__doc__)
    arguments = command(int(sys.argv[1]), *sys.argv[2:])
    os.execve(arguments[0], arguments, environment())
