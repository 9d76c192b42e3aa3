"""llama.cpp's server on this machine's CPU, at its best settings for many users:
`serve_llamacpp.py PORT [WEIGHTS ...]`.

Sixteen slots over one unified KV cache, so that slots share what they begin with; prompts are cached; a slot is chosen
by how much of the prompt it has. Weights are BF16 like everybody's in the comparison of workloads, unless others are
named (Q8_0, Q4_0). What follows is handed to llama.cpp.
"""

import os
import sys
from pathlib import Path

from places import gguf_of, peers_folder

SLOTS = 16
CONTEXT = 131_072
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

NGRAM = ("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "3", "--spec-ngram-simple-size-m", "8")
"""Options for speculative decoding by lookup in the text."""


def server() -> Path:
    """The program that `install.py` built."""
    return peers_folder() / "llamacpp" / "native" / "llama-server"


def command(port: int, weights: str = "BF16", *more: str) -> list[str]:
    """What to run; `more` are further options of the server's."""
    return [
        str(server()),
        *("--model", str(gguf_of(weights))),
        *("--alias", "smollm2-135m"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--threads", str(THREADS), "--threads-batch", str(THREADS)),
        *("--parallel", str(SLOTS), "--ctx-size", str(CONTEXT), "--kv-unified", "--cont-batching"),
        *("--flash-attn", "on"),
        *("--cache-prompt", "--slot-prompt-similarity", "0.1"),
        "--offline",
        *more,
    ]


if __name__ == "__main__":
    if not sys.argv[1:] or not sys.argv[1].isdecimal():
        sys.exit(__doc__)
    arguments = command(int(sys.argv[1]), *sys.argv[2:])
    os.execv(arguments[0], arguments)
