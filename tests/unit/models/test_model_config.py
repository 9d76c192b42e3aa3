"""Reading a model's shape from GGUF files and Hugging Face folders, and refusing what cannot be run exactly."""

import json
import math
from pathlib import Path

import pytest
import tiny_models

from parrotserve.errors import MalformedModel
from parrotserve.models.config import Family, ModelConfig, RopeKind, RopeScaling, load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.models.weights import load_weights

TINY = ModelConfig(
    family=Family.LLAMA,
    layers=2,
    hidden=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    intermediate=64,
    vocabulary=len(tiny_models.vocabulary()),
    context_length=128,
    rope_theta=10000.0,
    rope_scaling=None,
    rms_eps=tiny_models.RMS_EPS,
    tied_embeddings=True,
    qkv_bias=False,
    qk_norm=False,
    eos=frozenset({2}),
    bos=1,
    add_bos=False,
)

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = YARN | {"rope_type": "llama3", "factor": 8.0}


def folder(path: Path, **config: object) -> ModelConfig:
    return load_config(tiny_models.write_folder(path / "tiny", config=config))


def gguf(path: Path, **extra: int | float | str | bool) -> ModelConfig:
    named = {name.replace("__", "."): value for name, value in extra.items()}
    return load_config(tiny_models.write_gguf(path / "tiny.gguf", extra=named))


def test_a_gguf_file_and_a_folder_say_the_same(tiny_gguf: ModelFiles, tiny_folder: ModelFiles):
    assert load_config(tiny_gguf) == TINY
    assert load_config(tiny_folder) == TINY


@pytest.mark.model
def test_the_default_model(smollm: ModelFiles):
    config = load_config(smollm)
    assert (config.family, config.layers, config.hidden, config.heads, config.kv_heads) == (Family.LLAMA, 30, 576, 9, 3)
    assert (config.head_dim, config.intermediate, config.vocabulary) == (64, 1536, 49152)
    assert (config.context_length, config.rope_theta, config.rope_scaling) == (8192, 100000.0, None)
    assert config.tied_embeddings
    assert config.eos == {2}


@pytest.mark.parametrize(
    ("family", "tensors"), [("qwen2", {"biased": True}), ("qwen3", {"normed": True}), ("mistral", {"tied": False})]
)
def test_families_differ_in_their_flags(family: str, tensors: dict[str, bool], tmp_path: Path):
    weights = tiny_models.weights(**tensors)
    from_gguf = load_config(tiny_models.write_gguf(tmp_path / "a.gguf", architecture=family, tensors=weights))
    tied = {"tie_word_embeddings": "tied" not in tensors, "head_dim": tiny_models.HEAD_DIM}
    files = tiny_models.write_folder(tmp_path / "a", tensors=weights, config={"model_type": family} | tied)
    from_folder = load_config(files)
    for config in (from_gguf, from_folder):
        assert config.family is Family(family)
        assert config.qkv_bias is ("biased" in tensors)
        assert config.qk_norm is ("normed" in tensors)
        assert config.tied_embeddings is ("tied" not in tensors)


def test_rope_scaling_is_read_from_every_spelling(tmp_path: Path):
    yarn = RopeScaling(kind=RopeKind.YARN, factor=4.0, original_context=32)
    section = {"factor": 4.0, "original_max_position_embeddings": 32}
    assert folder(tmp_path, rope_scaling={"rope_type": "yarn"} | section).rope_scaling == yarn
    assert folder(tmp_path, rope_scaling={"type": "yarn"} | section).rope_scaling == yarn
    newer = folder(tmp_path, rope_theta=None, rope_parameters={"rope_type": "yarn", "rope_theta": 5e5} | section)
    assert (newer.rope_theta, newer.rope_scaling) == (5e5, yarn)
    prefix = "llama__rope__scaling__"
    keys = {f"{prefix}type": "yarn", f"{prefix}factor": 4.0, f"{prefix}original_context_length": 32}
    assert gguf(tmp_path, **keys).rope_scaling == yarn


def test_llama3_scaling_is_read(tmp_path: Path):
    section = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = folder(tmp_path, rope_scaling=section | {"original_max_position_embeddings": 64})
    assert config.rope_scaling == RopeScaling(kind=RopeKind.LLAMA3, factor=8.0, original_context=64)


@pytest.mark.parametrize("section", [None, {"rope_type": "default"}])
def test_plain_rope_is_no_scaling(section: object, tmp_path: Path):
    assert folder(tmp_path, rope_scaling=section).rope_scaling is None


def test_a_sliding_window_clips_the_context(tmp_path: Path):
    assert folder(tmp_path, model_type="mistral", sliding_window=48).context_length == 48
    assert folder(tmp_path, model_type="qwen2", sliding_window=48, use_sliding_window=False).context_length == 128
    assert gguf(tmp_path, llama__attention__sliding_window=48).context_length == 48


def test_all_ends_of_generation_are_collected(tmp_path: Path):
    files = tiny_models.write_folder(tmp_path / "tiny", config={"eos_token_id": [2, 5]})
    (files.path / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert load_config(files).eos == {2, 5, 7}


@pytest.mark.parametrize("end", [-1, 99_999])
def test_an_end_that_is_no_token_is_named_with_its_file(end: int, tmp_path: Path):
    files = tiny_models.write_folder(tmp_path / "tiny")
    (files.path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, end]}))
    for load in (load_config, load_tokenizer):
        with pytest.raises(MalformedModel, match=f"generation_config.json: eos_token_id is {end}, but there are"):
            load(files)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mamba"}, "architecture is 'mamba'; the native engine runs llama, mistral, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu, but only silu"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_scaling": {"type": "longrope", "factor": 2}}, "rope scaling 'longrope' is not supported"),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers must be a whole number, not 'two'"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": 0}, "layers is 0, but must be positive"),
        ({"num_attention_heads": 0}, "must be positive"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps must be a number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
        ({"model_type": 3}, "model_type must be a text"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by gptq: use the model as it was before"),
        ({"quantization_config": {}}, "quantised by a way of its own: use .* or as a GGUF file"),
        ({"eos_token_id": ["a"]}, "eos_token_id must hold only int values"),
        ({"eos_token_id": -1}, "config.json: eos_token_id is -1, but there are"),
        ({"eos_token_id": [2, 10**30]}, "config.json: eos_token_id is 10{30}, but there are"),
        ({"bos_token_id": -2}, "config.json: bos_token_id is -2, but there are"),
        ({"bos_token_id": 99_999}, "config.json: bos_token_id is 99999, but there are"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"rope_theta": 10**400}, "rope_theta must be a finite number"),
        ({"rope_theta": math.inf}, "rope_theta must be a finite number"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps must be a finite number"),
        ({"max_position_embeddings": 10**30}, "max_position_embeddings is 1000.*, more than there can be"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "linear rope scaling: factor is 0.0, but must be positive"),
        ({"rope_scaling": {**YARN, "factor": -1}}, "yarn rope scaling: factor is -1.0"),
        ({"rope_scaling": {**YARN, "original_max_position_embeddings": 0}}, "original_context is 0"),
        ({"rope_scaling": {**YARN, "original_max_position_embeddings": -5}}, "original_context is -5"),
        ({"rope_scaling": {**YARN, "beta_fast": 0}}, "beta_fast is 0.0"),
        ({"rope_scaling": {**YARN, "beta_slow": -1}}, "beta_slow is -1.0"),
        ({"rope_scaling": {**YARN, "attention_factor": -1}}, "attention_factor is -1.0"),
        ({"rope_scaling": YARN, "rope_theta": 1.0}, "rope_theta is 1.0, but yarn needs one above 1"),
        ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 0}}, "original_context is 0"),
        ({"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor is 1.0, but must be above low_freq"),
    ],
)
def test_configurations_that_cannot_be_run_are_refused(config: dict[str, object], words: str, tmp_path: Path):
    with pytest.raises(MalformedModel, match=words) as refusal:
        folder(tmp_path, **config)
    assert "config.json" in refusal.value.message


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"general__architecture": "gpt2"}, "architecture is 'gpt2'"),
        ({"split__count": 3}, "one of 3 parts"),
        ({"llama__expert_count": 8}, "expert_count is 8"),
        ({"llama__rope__dimension_count": 4}, "dimension_count is 4, but only 8"),
        ({"llama__attention__value_length": 16}, "value_length is 16"),
        ({"llama__rope__scaling__type": "longrope"}, "rope scaling 'longrope'"),
        ({"tokenizer__ggml__eos_token_id": 99_999}, "eos_token_id is 99999, but there are"),
        ({"tokenizer__ggml__eot_token_id": 99_999}, "eot_token_id is 99999, but there are"),
        ({"tokenizer__ggml__bos_token_id": 2**32 - 1}, "bos_token_id is 4294967295, but there are"),
        ({"llama__block_count": 1.5}, "block_count must be a whole number"),
        ({"llama__rope__freq_base": math.nan}, "freq_base must be a finite number"),
        ({"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": -2.0}, "factor is -2.0"),
    ],
)
def test_gguf_files_that_cannot_be_run_are_refused(extra: dict[str, int | float | str], words: str, tmp_path: Path):
    with pytest.raises(MalformedModel, match=words):
        gguf(tmp_path, **extra)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_clone_without_its_large_files_is_told_how_to_get_them(name: str, tiny_folder: ModelFiles):
    (tiny_folder.path / name).write_text(POINTER)
    told = rf"{name}: it only says where the file is \(Git LFS\): run `git lfs pull` in its folder"
    with pytest.raises(MalformedModel, match=told):
        (load_weights(tiny_folder, load_config(tiny_folder)), load_tokenizer(tiny_folder))


def test_a_gguf_file_of_a_clone_without_its_large_files_is_told_of_alike(tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "tiny.gguf")
    files.path.write_text(POINTER)
    with pytest.raises(MalformedModel, match="run `git lfs pull` in its folder"):
        load_config(files)


@pytest.mark.parametrize(("content", "words"), [(b"{", "not valid JSON"), (b"[1]", "a JSON object"), (b"\xff", "JSON")])
def test_broken_json_is_named(content: bytes, words: str, tiny_folder: ModelFiles):
    (tiny_folder.path / "config.json").write_bytes(content)
    with pytest.raises(MalformedModel, match=words):
        load_config(tiny_folder)
