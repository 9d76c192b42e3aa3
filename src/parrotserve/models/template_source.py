"""Reading a model's chat template and the texts of its special tokens from its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from parrotserve.models.files import ModelFiles, ModelFormat
from parrotserve.models.gguf_file import GgufFile
from parrotserve.models.metadata import Metadata, malformed, read_json

_JINJA_FILE = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """The source of a chat template, and the texts of the special tokens that it may write."""

    source: str
    bos: str
    eos: str


def read_template(files: ModelFiles) -> TemplateSource | None:
    """The model's chat template; None for models that are not trained to chat. Raises `MalformedModel`."""
    if files.format is ModelFormat.GGUF:
        data = GgufFile(files.path).metadata
        source = gguf_template(data)
        texts = [_gguf_special(data, name) for name in ("bos", "eos")]
    else:
        config = tokenizer_config(files.path)
        source = folder_template(files.path, config)
        texts = [special_text(config, f"{name}_token") or "" for name in ("bos", "eos")]
    return None if source is None else TemplateSource(source, *texts)


def gguf_template(data: Metadata) -> str | None:
    """The chat template in a GGUF file's key-values."""
    return data.text("tokenizer.chat_template") if "tokenizer.chat_template" in data else None


def _gguf_special(data: Metadata, name: str) -> str:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in data:
        return ""
    tokens = data.texts("tokenizer.ggml.tokens")
    index = data.token(key, len(tokens))
    return "" if index is None else tokens[index]


def tokenizer_config(folder: Path) -> Metadata:
    """`tokenizer_config.json`; empty if the folder has none."""
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else Metadata({}, path)


def folder_template(folder: Path, config: Metadata) -> str | None:
    """The chat template of a Hugging Face folder: in a file of its own or in `tokenizer_config.json`. Of several named
    ones there, the one named "default"."""
    own = folder / _JINJA_FILE
    if own.is_file():
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise malformed(own, f"it cannot be read ({error})") from error
    value = config.raw("chat_template")
    if isinstance(value, list):
        named = [cast("dict[str, object]", entry) for entry in value if isinstance(entry, dict)]
        value = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    if value is not None and not isinstance(value, str):
        raise config.malformed("chat_template must be a text")
    return value


def special_text(config: Metadata, key: str) -> str | None:
    """The text of a special token in `tokenizer_config.json`, which writes it as a string or as an object."""
    value = config.raw(key)
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    return value if isinstance(value, str) else None
