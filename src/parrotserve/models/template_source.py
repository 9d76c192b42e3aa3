"""Where a model keeps its chat template and the texts of its special tokens."""

from pathlib import Path
from typing import cast

from parrotserve.models.metadata import Metadata, malformed

_JINJA_FILE = "chat_template.jinja"


def gguf_template(data: Metadata) -> str | None:
    """The chat template in a GGUF file's key-values."""
    return data.text("tokenizer.chat_template") if "tokenizer.chat_template" in data else None


def folder_template(folder: Path, config: Metadata) -> str | None:
    """The chat template of a Hugging Face folder: a file of its own or in `tokenizer_config.json`, where there may
    be several by name."""
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
    """The text of a special token in `tokenizer_config.json`, written plainly or as an object."""
    value = config.raw(key)
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    return value if isinstance(value, str) else None
