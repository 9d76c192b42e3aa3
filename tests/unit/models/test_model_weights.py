"""Loading weights: the same arrays whatever the file, and clear words where the file is wrong."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from gguf import GGMLQuantizationType as Kind
from gguf import quants
from safetensors.numpy import save_file

from parrotserve.errors import MalformedModel
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.gguf_file import GgufFile
from parrotserve.models.weights import Array, ModelWeights, load_weights

FAMILIES = {
    "llama": {},
    "mistral": {"tied": False},
    "qwen2": {"biased": True},
    "qwen3": {"normed": True, "tied": False},
}


def load(files: ModelFiles) -> ModelWeights:
    return load_weights(files, load_config(files))


def by_hugging_face_name(weights: ModelWeights) -> dict[str, Array]:
    named: dict[str, Array | None] = {
        "model.embed_tokens.weight": weights.embedding,
        "model.norm.weight": weights.final_norm,
        "lm_head.weight": weights.head,
    }
    for index, layer in enumerate(weights.layers):
        fields = {
            "input_layernorm.weight": layer.attn_norm,
            "post_attention_layernorm.weight": layer.mlp_norm,
            "self_attn.q_proj.bias": layer.q_bias,
            "self_attn.k_proj.bias": layer.k_bias,
            "self_attn.v_proj.bias": layer.v_bias,
            "self_attn.q_norm.weight": layer.q_norm,
            "self_attn.k_norm.weight": layer.k_norm,
            **{f"self_attn.{name}_proj.weight": getattr(layer, name) for name in "qkvo"},
            **{f"mlp.{name}_proj.weight": getattr(layer, name) for name in ("gate", "up", "down")},
        }
        named |= {f"model.layers.{index}.{name}": array for name, array in fields.items()}
    return {name: array for name, array in named.items() if array is not None}


def assert_same(found: ModelWeights, expected: dict[str, Array], *, tolerance: float = 0.0) -> None:
    arrays = by_hugging_face_name(found)
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == np.float32
        np.testing.assert_allclose(arrays[name], array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_gguf_weights_come_back_as_they_were_converted(family: str, tmp_path: Path):
    expected = tiny_models.weights(**FAMILIES[family])
    assert_same(load(tiny_models.write_gguf(tmp_path / "a.gguf", architecture=family, tensors=expected)), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_folder_weights_come_back_as_they_were_saved(family: str, tmp_path: Path):
    expected = tiny_models.weights(**FAMILIES[family])
    config = {"model_type": family, "tie_word_embeddings": "tied" not in FAMILIES[family], "head_dim": 8}
    assert_same(load(tiny_models.write_folder(tmp_path / "a", tensors=expected, config=config)), expected)


def test_quantised_weights_are_dequantised(tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "a.gguf", kind=Kind.Q8_0)
    assert_same(load(files), tiny_models.weights(), tolerance=0.02)


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1])
def test_four_bit_blocks_are_kept_in_the_order_of_the_weights(kind: Kind, tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "tiny.gguf", kind=kind)
    layers = load_weights(files, load_config(files), four_bit=True).layers
    for layer in layers:
        assert set(layer.four_bit) == {"q", "k", "v", "o", "gate", "up", "down"}
        for name, blocks in layer.four_bit.items():
            found = quants.dequantize(blocks.reshape(len(blocks), -1), Kind.Q4_1)
            np.testing.assert_array_equal(found, getattr(layer, name))


def test_four_bit_blocks_are_kept_only_where_they_are_asked_for(tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "tiny.gguf", kind=Kind.Q4_1)
    assert not any(layer.four_bit for layer in load_weights(files, load_config(files)).layers)


def test_bfloat16_is_widened_exactly(tiny_folder: ModelFiles):
    exact = {name: (w.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, w in tiny_models.weights().items()}
    header, data = {}, b""
    for name, array in exact.items():  # the package's NumPy side cannot write this type
        half = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(half)]
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": offsets}
        data += half
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    (tiny_folder.path / "model.safetensors").write_bytes(content)
    assert_same(load(tiny_folder), exact)


def test_half_precision_is_widened(tiny_folder: ModelFiles):
    halves = {name: array.astype(np.float16) for name, array in tiny_models.weights().items()}
    save_file(halves, tiny_folder.path / "model.safetensors")
    assert_same(load(tiny_folder), {name: array.astype(np.float32) for name, array in halves.items()})


def test_shards_are_put_together(tiny_folder: ModelFiles):
    shard(tiny_folder.path)
    assert_same(load(tiny_folder), tiny_models.weights())


def shard(folder: Path) -> None:
    """Spread the folder's weights over two files with an index."""
    (folder / "model.safetensors").unlink()
    weights = tiny_models.weights()
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(weights)}
    for file in set(places.values()):
        save_file({name: weights[name] for name in weights if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_an_index_leads_nowhere_else(tiny_folder: ModelFiles):
    shard(tiny_folder.path)
    index = tiny_folder.path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(MalformedModel, match=r"names '\.\./elsewhere\.safetensors'"):
        load(tiny_folder)
    index.write_text(json.dumps({"weight_map": ["a"]}))
    with pytest.raises(MalformedModel, match="must map tensors to files"):
        load(tiny_folder)


def test_a_missing_shard_is_named(tiny_folder: ModelFiles):
    shard(tiny_folder.path)
    (tiny_folder.path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MalformedModel, match="model-00002-of-00002"):
        load(tiny_folder)


@pytest.mark.parametrize("length", [0, 4, 100, -500])
def test_truncated_safetensors_are_named(length: int, tiny_folder: ModelFiles):
    path = tiny_folder.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(MalformedModel, match=r"model\.safetensors: it cannot be read"):
        load(tiny_folder)


def test_layers_that_are_not_kept_are_read_as_they_are_come_to(tiny_folder: ModelFiles):
    kept = load(tiny_folder)
    read = load_weights(tiny_folder, load_config(tiny_folder), keep=False)
    for _ in range(2):
        assert len(read.layers) == len(list(read.layers)) == len(kept.layers)
        for one, other in zip(read.layers, kept.layers, strict=True):
            np.testing.assert_array_equal(one.gate, other.gate)
    weights = tiny_models.weights()
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tiny_folder.path / "model.safetensors")
    layers = iter(load_weights(tiny_folder, load_config(tiny_folder), keep=False).layers)
    next(layers)
    with pytest.raises(MalformedModel, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        next(layers)


def test_types_without_a_float_value_are_refused(tiny_folder: ModelFiles):
    weights = {name: array.astype(np.int32) for name, array in tiny_models.weights().items()}
    save_file(weights, tiny_folder.path / "model.safetensors")
    with pytest.raises(MalformedModel, match="has the type I32"):
        load(tiny_folder)


def test_a_missing_tensor_is_named(tiny_folder: ModelFiles, tmp_path: Path):
    weights = tiny_models.weights()
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tiny_folder.path / "model.safetensors")
    with pytest.raises(MalformedModel, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load(tiny_folder)
    with pytest.raises(MalformedModel, match=r"blk\.1\.ffn_up\.weight is missing"):
        load(tiny_models.write_gguf(tmp_path / "a.gguf", tensors=weights))


def test_a_tensor_of_another_shape_is_named(tmp_path: Path):
    files = tiny_models.write_folder(tmp_path / "tiny", config={"intermediate_size": 60})
    with pytest.raises(MalformedModel, match=r"gate_proj\.weight has the shape \(64, 32\).* implies \(60, 32\)"):
        load(files)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0x7F800000, 0xFF800000])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "model.layers.1.mlp.up_proj.weight"]
)
def test_weights_that_are_no_finite_numbers_are_named(name: str, bits: int, tmp_path: Path):
    """Some backends hide them, and compute something else."""
    weights = tiny_models.weights()
    weights[name].reshape(-1).view(np.uint32)[13] = bits
    words = rf"tensor {name.removeprefix('model.')} has values that are not finite numbers"
    with pytest.raises(MalformedModel, match=words):
        load(tiny_models.write_folder(tmp_path / "tiny", tensors=weights))
    with pytest.raises(MalformedModel, match=words):
        load(tiny_models.write_gguf(tmp_path / "a.gguf", tensors=weights))


@pytest.mark.parametrize("scale", [b"\xff\x7f", b"\x00\x7c"], ids=["NaN", "infinity"])
@pytest.mark.parametrize("four_bit", [False, True])
def test_damaged_scales_of_quantised_weights_are_named(four_bit: bool, scale: bytes, tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "a.gguf", kind=Kind.Q4_1)
    content = bytearray(files.path.read_bytes())
    blocks = GgufFile(files.path).four_bit("blk.1.ffn_up.weight")
    assert blocks is not None
    at = content.index(blocks.tobytes())
    content[at : at + 2] = scale
    files.path.write_bytes(content)
    with pytest.raises(MalformedModel, match=r"up_proj\.weight has values that are not finite numbers"):
        load_weights(files, load_config(files), four_bit=four_bit)


def test_plain_rope_frequencies(tiny_folder: ModelFiles):
    weights = load(tiny_folder)
    np.testing.assert_allclose(weights.rope_frequencies, [10000.0 ** (-pair / 4) for pair in range(4)])
    assert weights.rope_magnitude == 1.0


def test_linear_scaling_slows_every_frequency(tmp_path: Path):
    scaling = {"rope_type": "linear", "factor": 4.0}
    weights = load(tiny_models.write_folder(tmp_path / "tiny", config={"rope_scaling": scaling}))
    np.testing.assert_allclose(weights.rope_frequencies, [10000.0 ** (-pair / 4) / 4 for pair in range(4)])


def test_gguf_divides_by_the_factors_that_it_carries(tiny_gguf: ModelFiles, tmp_path: Path):
    factors = np.array([1, 1, 4, 8], dtype=np.float32)
    stretched = load(tiny_models.write_gguf(tmp_path / "a.gguf", rope_factors=factors))
    np.testing.assert_allclose(stretched.rope_frequencies, load(tiny_gguf).rope_frequencies / factors)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (np.ones(3), r"has the shape \(3,\), where the configuration implies \(4,\)"),
        (np.ones((2, 4)), r"has the shape \(2, 4\)"),
        (np.array([1, 0, 4, 8]), "has values that are not positive"),
        (np.array([1, np.nan, 4, 8]), "has values that are not finite numbers"),
    ],
)
def test_factors_that_cannot_be_are_refused(factors: np.ndarray, words: str, tmp_path: Path):
    files = tiny_models.write_gguf(tmp_path / "a.gguf", rope_factors=factors.astype(np.float32))
    with pytest.raises(MalformedModel, match=rf"tensor rope_freqs\.weight {words}"):
        load(files)


@pytest.mark.parametrize("numbers", [{"beta_fast": 5e-324}, {"beta_slow": 1e308}, {"factor": 5e-324}])
def test_frequencies_that_cannot_be_computed_are_refused(numbers: dict[str, float], tmp_path: Path):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64} | numbers
    files = tiny_models.write_folder(tmp_path / "tiny", config={"rope_scaling": scaling})
    with pytest.raises(MalformedModel, match="its rotary frequencies cannot be computed"):
        load(files)


def reference_llama3(theta: float, size: int, scaling: dict[str, float]) -> list[float]:
    """Wave by wave, as the model's release defines it."""
    result: list[float] = []
    for pair in range(size // 2):
        frequency = theta ** (-2 * pair / size)
        wave = 2 * math.pi / frequency
        context = scaling["original_max_position_embeddings"]
        if wave < context / scaling["high_freq_factor"]:
            result.append(frequency)
        elif wave > context / scaling["low_freq_factor"]:
            result.append(frequency / scaling["factor"])
        else:
            span = scaling["high_freq_factor"] - scaling["low_freq_factor"]
            smooth = (context / wave - scaling["low_freq_factor"]) / span
            result.append((1 - smooth) * frequency / scaling["factor"] + smooth * frequency)
    return result


def test_llama3_scaling_is_the_release_s(tmp_path: Path):
    numbers = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    scaling = {"rope_type": "llama3"} | numbers
    weights = load(tiny_models.write_folder(tmp_path / "tiny", config={"rope_scaling": scaling, "rope_theta": 100.0}))
    np.testing.assert_allclose(weights.rope_frequencies, reference_llama3(100.0, 8, numbers))


def test_yarn_keeps_fast_waves_slows_slow_ones_and_scales_attention(tmp_path: Path):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    weights = load(tiny_models.write_folder(tmp_path / "tiny", config={"rope_scaling": scaling}))
    plain = np.array([10000.0 ** (-pair / 4) for pair in range(4)])
    ratio = weights.rope_frequencies / plain
    assert ratio[0] == 1.0
    assert ratio[-1] == 0.25
    assert np.all(np.diff(ratio) <= 0)
    assert weights.rope_magnitude == pytest.approx(0.1 * math.log(4) + 1)
