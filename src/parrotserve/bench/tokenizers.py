"""The tokenizer of the measured model: for texts of exact lengths, and for peers that get token ids."""

from typing import cast

from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.models.config import load_config
from parrotserve.models.registry import FAKE_MODEL, resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer


def tokenizer_of(model: str) -> Tokenizer:
    """The tokenizer of a model, by the model's name or path. Raises `ModelError`."""
    if model == FAKE_MODEL:
        return cast("Tokenizer", FakeTokenizer())
    files = resolve(model)
    return load_tokenizer(files, rows=load_config(files).vocabulary)
