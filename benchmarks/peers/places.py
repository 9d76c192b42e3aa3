"""Where peers live: one folder in the user's cache, an environment for each, and the model in their formats."""

import os
from pathlib import Path

import platformdirs


def peers_folder() -> Path:
    """`PARROT_PEERS`, or a folder in the user's cache."""
    chosen = os.environ.get("PARROT_PEERS")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("parrot-peers")


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, whether it is there or not."""
    return peers_folder() / peer / "bin" / "python"


def gguf_of(kind: str) -> Path:
    """The model as a GGUF file with weights of this kind: BF16, Q8_0 or Q4_0."""
    return peers_folder() / "model" / f"smollm2-135m.{kind}.gguf"


def hugging_face_folder() -> Path:
    """The model as a Hugging Face folder."""
    return peers_folder() / "model" / "smollm2-135m"


def llama_library() -> Path:
    """llama.cpp with its C interface, built for this processor."""
    return peers_folder() / "llamacpp" / "native" / "libllama.so"
