"""Text to tokens and back: as the model's own tokenizer does, for real and small vocabularies."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from llguidance import LLTokenizer

from parrotserve.errors import MalformedModel
from parrotserve.models.files import ModelFiles
from parrotserve.models.gguf_file import GgufFile
from parrotserve.models.metadata import Metadata
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer
from parrotserve.models.tokenizer_parts import gguf_parts

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "golden"

any_text = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture(scope="module")
def tiny(tiny_gguf: ModelFiles) -> Tokenizer:
    return load_tokenizer(tiny_gguf)


@pytest.mark.model
def test_tokens_equal_the_model_s_own_for_1000_texts(tokenizer: Tokenizer):
    entries = json.loads((GOLDEN / "tokenizer.json").read_text(encoding="utf-8"))["texts"]
    assert len({entry["text"] for entry in entries}) > 950
    for entry in entries:
        text = entry["text"]
        assert tokenizer.encode(text) == entry["ids"], text
        assert tokenizer.encode(text, special=True) == entry.get("special", entry["ids"]), text
        assert tokenizer.decode(entry["ids"], special=True) == text


@pytest.mark.model
@pytest.mark.parametrize("pre", ["default", "gpt-2", "llama-bpe", "qwen2", "tekken"])
def test_other_models_part_texts_into_words_as_llama_cpp_does(pre: str, smollm: ModelFiles):
    texts = json.loads((GOLDEN / "tokenizer.json").read_text(encoding="utf-8"))["texts"]
    expected = json.loads((GOLDEN / "pre_tokenizers.json").read_text(encoding="utf-8"))[pre]
    keys = ("model", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id")
    metadata = GgufFile(smollm.path).metadata
    values = {f"tokenizer.ggml.{key}": metadata.raw(f"tokenizer.ggml.{key}") for key in keys}
    tokenizer = Tokenizer(gguf_parts(Metadata(values | {"tokenizer.ggml.pre": pre}, smollm.path)))
    assert len(expected) == 100
    for entry, ids in zip(texts[:: len(texts) // len(expected)], expected, strict=True):
        assert tokenizer.encode(entry["text"]) == ids, entry["text"]


@pytest.mark.model
def test_no_control_token_can_be_spelled(tokenizer: Tokenizer):
    control = [index for index in range(tokenizer.vocabulary_size) if tokenizer.is_control(index)]
    assert len(control) == 17
    for index in control:
        name = tokenizer.token_bytes(index).decode()
        for text in (name, f"a {name}b", f"{name}\n{name}"):
            assert not any(map(tokenizer.is_control, tokenizer.encode(text))), text
            assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode(name, special=True) == [index]


@pytest.mark.model
def test_the_default_model_s_facts(tokenizer: Tokenizer):
    assert tokenizer.vocabulary_size == 49152
    assert tokenizer.eos == {0, 2}
    assert tokenizer.bos == 1
    assert tokenizer.prompt_start == []
    assert tokenizer.chat_template is not None


@pytest.mark.model
def test_grammars_read_its_json(tokenizer: Tokenizer):
    text = '{"name": "Ada", "born": 1815}'
    theirs = LLTokenizer(tokenizer.to_json())
    assert theirs.tokenize_str(text) == tokenizer.encode(text)
    assert theirs.vocab_size == tokenizer.vocabulary_size


def test_merges_apply_in_order(tiny: Tokenizer):
    assert [tiny.token_bytes(index) for index in tiny.encode("hello hello hell")] == [
        b"hello",
        b" hello",
        b" ",
        b"hell",
    ]


def test_digits_stand_alone(tiny: Tokenizer):
    assert [tiny.token_bytes(index) for index in tiny.encode("4²")] == [b"4", b"\xc2", b"\xb2"]


@given(any_text)
def test_decoding_gives_the_text_back(tiny: Tokenizer, text: str):
    assert tiny.decode(tiny.encode(text)) == text
    assert tiny.count(text) == len(tiny.encode(text))


def test_control_tokens_are_left_out_of_text_unless_asked_for(tiny: Tokenizer):
    ids = tiny.encode("hello<|im_end|>", special=True)
    assert ids[-1] == 2
    assert tiny.decode(ids) == "hello"
    assert tiny.decode(ids, special=True) == "hello<|im_end|>"


@pytest.mark.parametrize("special", [False, True])
@given(text=any_text)
@example(text="<|im_start|>user")
@example(text="a \ud800 b")
def test_long_texts_get_the_tokens_that_short_ones_get(tiny: Tokenizer, special: bool, text: str):
    short, cut = tiny.encode(text, special=special), tiny.truncate(text, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parrotserve.models.tokenizer._SHORT", -1)
        assert tiny.encode(text, special=special) == short
        assert tiny.count(text, special=special) == len(short)
        assert tiny.truncate(text, 2) == cut


@pytest.mark.model
def test_long_texts_get_the_model_s_own_tokens(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    entries = json.loads((GOLDEN / "tokenizer.json").read_text(encoding="utf-8"))["texts"]
    monkeypatch.setattr("parrotserve.models.tokenizer._SHORT", -1)
    for entry in entries:
        assert tokenizer.encode(entry["text"]) == entry["ids"], entry["text"]
        assert tokenizer.encode(entry["text"], special=True) == entry.get("special", entry["ids"]), entry["text"]


@pytest.mark.parametrize("work", ["encode", "count", "truncate"])
def test_other_threads_run_while_a_long_text_is_tokenised(tiny: Tokenizer, work: str):
    runs, over = 0, threading.Event()

    def count() -> None:
        nonlocal runs
        while not over.wait(0.001):
            runs += 1

    beside = threading.Thread(target=count)
    beside.start()
    try:
        before = runs
        getattr(tiny, work)("hello 42 hello, " * 50_000, *([100_000] if work == "truncate" else []))
        assert runs - before > 5
    finally:
        over.set()
        beside.join()


def test_lone_surrogates_become_replacement_characters(tiny: Tokenizer):
    assert tiny.decode(tiny.encode("a\ud83db")) == "a\ufffdb"


@pytest.mark.model
def test_bytes_that_the_vocabulary_lacks_are_dropped(tokenizer: Tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\x04b")) == "ab"


def test_ids_beyond_the_vocabulary_are_empty(tiny: Tokenizer):
    assert tiny.token_bytes(tiny.vocabulary_size) == b""


@given(st.lists(st.lists(st.integers(0, 263), max_size=5), max_size=12), st.booleans())
def test_a_stream_joins_to_the_whole(tiny: Tokenizer, pushes: list[list[int]], special: bool):
    stream = tiny.stream(special=special)
    streamed = "".join(map(stream.push, pushes)) + stream.flush()
    assert streamed == tiny.decode([index for push in pushes for index in push], special=special)


def test_a_stream_holds_an_unfinished_character_back(tiny: Tokenizer):
    stream = tiny.stream()
    parts = [stream.push([index]) for index in tiny.encode("a🎉")]
    assert parts == ["a", "", "", "", "🎉"]
    stream.push(tiny.encode("🎉")[:2])
    assert stream.flush() == "\ufffd"
    assert stream.push(tiny.encode("b")) == "b"


@given(any_text, st.integers(0, 20))
def test_truncation_takes_as_much_as_fits(tiny: Tokenizer, text: str, tokens: int):
    short = tiny.truncate(text, tokens)
    assert text.startswith(short)
    assert tiny.count(short) <= tokens
    assert short == text or tiny.count(text[: len(short) + 1]) > tokens


def test_truncation_reads_no_more_of_a_long_text_than_it_takes(tiny: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    text, read = "hello 42 hello, " * 100_000, list[int]()
    encoding = Tokenizer._encoding

    def spied(self: Tokenizer, text: str, **options: bool) -> Any:
        read.append(len(text))
        return encoding(self, text, **options)

    monkeypatch.setattr(Tokenizer, "_encoding", spied)
    assert tiny.count(tiny.truncate(text, 10)) == 10
    assert max(read) < 2_000
    short = text[:5_000]
    for tokens in (1, 100, 1_000, 10_000):
        monkeypatch.setattr("parrotserve.models.tokenizer._BEYOND", 64)
        cut = tiny.truncate(short, tokens)
        monkeypatch.setattr("parrotserve.models.tokenizer._BEYOND", 10_000)
        assert tiny.truncate(short, tokens) == cut


@pytest.mark.model
def test_truncation_cuts_at_characters(tokenizer: Tokenizer):
    assert tokenizer.truncate("hello wörld 🎉🎉 12345", 7) == "hello wörld 🎉"


@pytest.mark.model
def test_truncation_is_quick_on_any_text(tokenizer: Tokenizer):
    # Neither characters that are no tokens nor a word without end make it try every length.
    dropped = "hello" + "\x04" * 50_000 + "world"
    assert tokenizer.truncate(dropped, 1) == "hello" + "\x04" * 50_000
    assert tokenizer.truncate(dropped, 0) == ""
    for endless in ("a" * 50_000, " " * 50_000, "🎉" * 20_000):
        assert 98 <= tokenizer.count(tokenizer.truncate(endless, 100)) <= 100


def test_threads_share_one_tokenizer(tiny: Tokenizer):
    text = "hello <|im_end|> hello"
    expected = {special: tiny.encode(text, special=special) for special in (False, True)}
    found: list[bool] = []

    def work(special: bool) -> None:
        found.extend(tiny.encode(text, special=special) == expected[special] for _ in range(200))

    threads = [threading.Thread(target=work, args=(bool(index % 2),)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 800


def test_a_folder_gives_the_same_tokenizer_as_a_gguf_file(tiny: Tokenizer, tiny_folder: ModelFiles):
    other = load_tokenizer(tiny_folder)
    for text in ("hello 42 hello", "ünï 🎉", "<|im_end|>", " \n x"):
        for special in (False, True):
            assert other.encode(text, special=special) == tiny.encode(text, special=special)
    assert (other.eos, other.vocabulary_size) == (tiny.eos, tiny.vocabulary_size)


def test_a_folder_s_bos_is_what_its_own_tokenizer_adds(tmp_path: Path):
    files = tiny_models.write_folder(tmp_path / "tiny", tokenizer_config={"bos_token": {"content": "<|im_start|>"}})
    assert load_tokenizer(files).prompt_start == []
    core = tokenizers.Tokenizer.from_file(str(files.path / "tokenizer.json"))
    core.post_processor = tokenizers.processors.TemplateProcessing("<|im_start|> $0", None, [("<|im_start|>", 1)])
    core.save(str(files.path / "tokenizer.json"))
    loaded = load_tokenizer(files)
    assert (loaded.bos, loaded.prompt_start) == (1, [1])
    assert loaded.encode("hello") == loaded.encode("hello", special=True) == [load_tokenizer(files).encode("hello")[0]]


def test_a_gguf_file_says_whether_prompts_start_with_bos(tmp_path: Path):
    def start(pre: str, **extra: bool) -> list[int]:
        named = {f"tokenizer.ggml.{name}": value for name, value in extra.items()}
        return load_tokenizer(tiny_models.write_gguf(tmp_path / "a.gguf", pre=pre, extra=named)).prompt_start

    assert start("smollm") == []
    assert start("smollm", add_bos_token=True) == [1]
    assert start("llama-bpe") == [1]
    assert start("llama-bpe", add_bos_token=False) == []


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["I", "'m", " 1234", "  ", " it", "'", "S", ";", "\n", "\n", "a"]),
        ("smollm", ["I", "'m", " ", "1", "2", "3", "4", "  ", " it", "'", "S", ";", "\n", "\n", "a"]),
        ("qwen2", ["I", "'m", " ", "1", "2", "3", "4", "  ", " it", "'S", ";\n\n", "a"]),
        ("llama-bpe", ["I", "'m", " ", "123", "4", "  ", " it", "'S", ";\n\n", "a"]),
        ("tekken", ["I", "'m", " ", "1", "2", "3", "4", "  ", " it", "'S", ";\n\n", "a"]),
    ],
)
def test_words_are_split_as_each_pre_tokenizer_says(pre: str, pieces: list[str], tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "a.gguf", pre=pre)
    core = tokenizers.Tokenizer.from_str(load_tokenizer(files).to_json())
    text = "I'm 1234   it'S;\n\na"
    assert core.pre_tokenizer is not None
    found = [text[start:end] for _, (start, end) in core.pre_tokenizer.pre_tokenize_str(text)]
    assert found == pieces


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"tokenizer.ggml.model": "llama"}, "of the kind 'llama'; supported is 'gpt2'"),
        (
            {"tokenizer.ggml.pre": "unheard-of"},
            "pre-tokenizer 'unheard-of' is not known; known are default, gpt-2, smollm",
        ),
        ({"tokenizer.ggml.eos_token_id": 9999}, "eos_token_id is 9999, but there are"),
    ],
)
def test_tokenizers_that_cannot_be_built_are_refused(extra: dict[str, str | int], words: str, tmp_path: Path):
    with pytest.raises(MalformedModel, match=words):
        load_tokenizer(tiny_models.write_gguf(tmp_path / "a.gguf", extra=extra))


def test_merges_of_unknown_tokens_are_refused(tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "a.gguf")
    damaged = files.path.read_bytes().replace(b"he ll", b"zz yy")
    files.path.write_bytes(damaged)
    with pytest.raises(MalformedModel, match=r"merges does not fit its tokens"):
        load_tokenizer(files)


def test_a_broken_tokenizer_json_is_named(tiny_folder: ModelFiles):
    (tiny_folder.path / "tokenizer.json").write_text("{}")
    with pytest.raises(MalformedModel, match=r"tokenizer\.json: the tokenizer in it cannot be read"):
        load_tokenizer(tiny_folder)


def test_other_kinds_of_tokens_are_refused(tiny_folder: ModelFiles):
    path = tiny_folder.path / "tokenizer.json"
    content = tiny_models.tokenizer_json()
    content["model"] = {"type": "BPE", "vocab": {**dict.fromkeys(tiny_models.SPECIALS, 0), "▁hello": 3}, "merges": []}
    path.write_text(json.dumps(content))
    with pytest.raises(MalformedModel, match="is not byte-level BPE"):
        load_tokenizer(tiny_folder)


def test_the_fingerprint_names_words_and_template(tmp_path: Path, tiny: Tokenizer):
    def fingerprint(**options: str) -> str:
        return load_tokenizer(tiny_models.write_gguf(tmp_path / "a.gguf", **options)).fingerprint  # type: ignore[arg-type]

    assert fingerprint() == tiny.fingerprint
    assert len({fingerprint(), fingerprint(template="{{ messages }}"), fingerprint(pre="qwen2")}) == 3
