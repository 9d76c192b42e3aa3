"""Tokens that a model's tokenizer names and its weights lack: no prompt may have them."""

import json
from pathlib import Path

import pytest
from tiny_models import vocabulary, write_folder

from parrotserve.config import ServiceConfig
from parrotserve.errors import DeclarationError
from parrotserve.ids import LOCAL_TENANT
from parrotserve.protocol import RequestSpec, Submit, TokensSegment
from parrotserve.runtime.admission import admit
from parrotserve.runtime.catalog import ServedModel, load_model


def test_a_token_without_a_row_of_the_embedding_is_refused_at_admission(tmp_path: Path):
    files = write_folder(tmp_path)
    rows = len(vocabulary())
    page = tmp_path / "tokenizer.json"
    tokenizer = json.loads(page.read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": rows, "content": "<late>"})
    page.write_text(json.dumps(tokenizer))
    model = load_model(str(files.path), ServiceConfig())
    assert model.renderer.tokenizer.vocabulary_size == rows + 1

    def submit(token: int) -> Submit:
        spec = RequestSpec(id="r", function="f", segments=(TokensSegment(tokens=(token,)),))
        return Submit(session="s", requests=(spec,))

    models: dict[str | None, ServedModel] = {None: model}
    admit(submit(rows - 1), tenant=LOCAL_TENANT, models=models, longest_lease=60)
    with pytest.raises(DeclarationError, match=f"Token {rows} of a prompt is none of"):
        admit(submit(rows), tenant=LOCAL_TENANT, models=models, longest_lease=60)
