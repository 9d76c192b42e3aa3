"""The tokenizer of the model that is measured: for texts of exact lengths, and for peers that get token ids."""

from typing import cast

from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer
from parrotserve.runtime.catalog import FAKE_MODEL


def tokenizer_of(model: str) -> Tokenizer:
    """By a model's name or path. Raises `ModelError`."""
    return cast("Tokenizer", FakeTokenizer()) if model == FAKE_MODEL else load_tokenizer(resolve(model))
