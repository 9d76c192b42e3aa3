"""A model on disk: what the registry found and everything else in this package reads."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelFormat(StrEnum):
    """How a model lies on disk."""

    GGUF = "gguf"
    """One file with weights, tokenizer and chat template."""
    SAFETENSORS = "safetensors"
    """A Hugging Face folder: `config.json`, `tokenizer.json`, `*.safetensors`."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is there: the name it goes by, its file or folder, and the format."""

    name: str
    path: Path
    format: ModelFormat
