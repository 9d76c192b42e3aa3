"""The real model's files and vocabulary, and small stand-ins for both."""

from pathlib import Path

import pytest
import tiny_models

from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import DEFAULT_MODEL, resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def smollm() -> ModelFiles:
    return resolve(DEFAULT_MODEL)


@pytest.fixture(scope="session")
def tokenizer(smollm: ModelFiles) -> Tokenizer:
    return load_tokenizer(smollm)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_models.write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def tiny_folder(tmp_path: Path) -> ModelFiles:
    return tiny_models.write_folder(tmp_path / "tiny")
