"""A model on disk, as the registry finds it and the rest of this package reads it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelFormat(StrEnum):
    """The format of a model on disk."""

    GGUF = "gguf"
    """One file with weights, tokenizer and chat template."""
    SAFETENSORS = "safetensors"
    """A Hugging Face folder: `config.json`, `tokenizer.json`, `*.safetensors`."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that exists on disk: its name, its file or folder, and the format."""

    name: str
    path: Path
    format: ModelFormat
