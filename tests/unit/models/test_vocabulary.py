"""Tokens that a model's tokenizer names and its weights lack: no prompt may have them."""

import json
from pathlib import Path

import pytest
from tiny_models import vocabulary, write_folder, write_gguf

from parrotserve.config import ServiceConfig
from parrotserve.errors import DeclarationError, MalformedModel
from parrotserve.ids import LOCAL_TENANT
from parrotserve.models.files import ModelFiles
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.protocol import RequestSpec, Submit, TokensSegment
from parrotserve.runtime.admission import admit
from parrotserve.runtime.catalog import ServedModel, load_model

ROWS = len(vocabulary())


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    """Of a tokenizer with two tokens more than the weights: text spells one, templates the other."""
    files = write_folder(tmp_path)
    page = tmp_path / "tokenizer.json"
    tokenizer = json.loads(page.read_text())
    like = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [
        {**like, "id": ROWS, "content": "<tool_call>", "special": False},
        {**like, "id": ROWS + 1, "content": "<|late|>"},
    ]
    page.write_text(json.dumps(tokenizer))
    return files


def test_a_token_without_a_row_of_the_embedding_is_refused_at_admission(files: ModelFiles):
    model = load_model(str(files.path), ServiceConfig())

    def submit(token: int) -> Submit:
        spec = RequestSpec(id="r", function="f", segments=(TokensSegment(tokens=(token,)),))
        return Submit(session="s", requests=(spec,))

    models: dict[str | None, ServedModel] = {None: model}
    admit(submit(ROWS - 1), tenant=LOCAL_TENANT, models=models, longest_lease=60)
    with pytest.raises(DeclarationError, match=f"Token {ROWS} of a prompt is not in the vocabulary of"):
        admit(submit(ROWS), tenant=LOCAL_TENANT, models=models, longest_lease=60)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("text", ["a <tool_call> b", "<|late|>", "<|im_end|> hello"])
def test_text_that_spells_one_is_ordinary_text(files: ModelFiles, text: str, special: bool, tmp_path: Path):
    tokenizer = load_model(str(files.path), ServiceConfig()).renderer.tokenizer
    assert tokenizer.vocabulary_size == ROWS
    tokens = tokenizer.encode(text, special=special)
    assert max(tokens) < ROWS
    assert tokenizer.decode(tokens, special=True) == text
    plain = load_tokenizer(write_folder(tmp_path / "plain"))
    assert tokens == plain.encode(text, special=special)


def test_words_of_the_vocabulary_itself_are_spelled_with_others_too(tmp_path: Path):
    """GGUF files have one list of tokens, of which the last ones may be such."""
    gguf = write_gguf(tmp_path / "a.gguf")
    whole, cut = load_tokenizer(gguf), load_tokenizer(gguf, rows=ROWS - 1)
    last = whole.decode([ROWS - 1])
    assert whole.encode(last) == [ROWS - 1]
    assert max(cut.encode(last)) < ROWS - 1
    assert cut.decode(cut.encode(last)) == last
    assert cut.to_json() != whole.to_json()


def test_a_start_of_every_prompt_that_the_weights_lack_is_refused(tmp_path: Path):
    extra = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.add_bos_token": True}
    gguf = write_gguf(tmp_path / "a.gguf", extra=extra)
    with pytest.raises(MalformedModel, match="prompts start with token 1, but its weights have only 1 tokens"):
        load_tokenizer(gguf, rows=1)
