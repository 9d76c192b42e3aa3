"""Reading GGUF files: the same as the `gguf` package reads, and clear words for damaged ones."""

import contextlib
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_models
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.errors import MalformedModel
from parrotserve.models.files import ModelFiles
from parrotserve.models.gguf_file import GgufFile


def test_reads_what_the_gguf_package_reads(tiny_gguf: ModelFiles):
    ours, theirs = GgufFile(tiny_gguf.path), gguf.GGUFReader(tiny_gguf.path)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert ours.metadata.raw(key) == field.contents(), key
    assert list(ours.places) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        np.testing.assert_array_equal(ours.tensor(tensor.name), gguf.quants.dequantize(tensor.data, tensor.tensor_type))


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1])
def test_dequantises(kind: Kind, tmp_path: Path):
    path = tiny_models.write_gguf(tmp_path / "tiny.gguf", kind=kind).path
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}["blk.0.ffn_up.weight"]
    found = GgufFile(path).tensor("blk.0.ffn_up.weight")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, gguf.quants.dequantize(expected.data, expected.tensor_type))
    original = tiny_models.weights()["model.layers.0.mlp.up_proj.weight"]
    assert np.abs(found - original).max() < {Kind.F16: 2e-3, Kind.BF16: 2e-2, Kind.Q8_0: 2e-2}.get(kind, 0.4)


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1])
def test_four_bit_blocks_stand_for_the_same_weights(kind: Kind, tmp_path: Path):
    file = GgufFile(tiny_models.write_gguf(tmp_path / "tiny.gguf", kind=kind).path)
    blocks = file.four_bit("blk.0.ffn_up.weight")
    assert blocks is not None
    np.testing.assert_array_equal(
        gguf.quants.dequantize(blocks.reshape(len(blocks), -1), Kind.Q4_1), file.tensor("blk.0.ffn_up.weight")
    )


def test_other_types_have_no_four_bit_blocks(tmp_path: Path):
    file = GgufFile(tiny_models.write_gguf(tmp_path / "tiny.gguf", kind=Kind.Q8_0).path)
    assert file.four_bit("blk.0.ffn_up.weight") is None
    assert file.four_bit("blk.0.ffn_norm.weight") is None
    with pytest.raises(MalformedModel, match=r"blk\.9\.ffn_up\.weight is missing"):
        file.four_bit("blk.9.ffn_up.weight")


def test_scales_too_large_to_put_otherwise_leave_no_four_bit_blocks(tmp_path: Path):
    path = tmp_path / "large.gguf"
    block = np.concatenate((np.array([-10_000], np.float16).view(np.uint8), np.zeros(16, np.uint8)))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("large", block.reshape(1, -1), raw_dtype=Kind.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert GgufFile(path).four_bit("large") is None
    assert (GgufFile(path).tensor("large") == 80_000).all()


def test_nested_arrays_are_read(tmp_path: Path):
    path = tmp_path / "nested.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("table", [[1, 2], [3]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert GgufFile(path).metadata.raw("table") == [[1, 2], [3]]


def test_a_truncated_header_is_named_wherever_it_ends(tiny_gguf: ModelFiles, tmp_path: Path):
    whole = tiny_gguf.path.read_bytes()
    header = whole.index(b"blk.0.attn_norm.weight")
    path = tmp_path / "cut.gguf"
    for length in {*range(1, header, 97), header + 10}:
        path.write_bytes(whole[:length])
        with pytest.raises(MalformedModel, match=r"cut\.gguf"):
            GgufFile(path)


def test_truncated_tensors_are_named(tiny_gguf: ModelFiles, tmp_path: Path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_gguf.path.read_bytes()[:-1000])
    file = GgufFile(path)
    last = max(file.places, key=lambda name: file.places[name].offset)
    with pytest.raises(MalformedModel, match=r"cut\.gguf: it is truncated: tensor .* ends at byte \d+ of \d+"):
        file.tensor(last)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 9), "version is 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62) + bytes(99), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77) + bytes(99), "unknown value type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**40) + bytes(99), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 9) + struct.pack("<IQ", 9, 1) * 50, "too deeply"),
        (b"GGUF" + struct.pack("<IQQQ1s", 3, 0, 1, 1, b"\xff") + bytes(99), "not UTF-8"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 9) + bytes(99), "9 dimensions"),
        (b"GGUF" + struct.pack("<IQQQ1sIQ", 3, 1, 0, 1, b"t", 1, 0) + bytes(99), "empty shape"),
    ],
)
def test_malformed_headers_are_refused(content: bytes, words: str, tmp_path: Path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(MalformedModel, match=words):
        GgufFile(path)


def test_a_tensor_listed_twice_is_refused(tmp_path: Path):
    entry = struct.pack("<Q1sIQIQ", 1, b"t", 1, 1, 0, 0)
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + 2 * entry + bytes(99))
    with pytest.raises(MalformedModel, match="tensor t appears twice"):
        GgufFile(path)


@pytest.mark.parametrize(
    ("kind", "words"), [(1234, "unknown type 1234"), (24, "I8, not supported"), (2, "no multiple")]
)
def test_tensor_types_that_cannot_be_read_are_named(kind: int, words: str, tmp_path: Path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 8, kind, 0) + bytes(99))
    with pytest.raises(MalformedModel, match=words):
        GgufFile(path).tensor("t")


@given(place=st.integers(0, 6000), value=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(
    place: int, value: int, tiny_gguf: ModelFiles, tmp_path_factory: pytest.TempPathFactory
):
    damaged = bytearray(tiny_gguf.path.read_bytes())
    damaged[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(damaged)
    with contextlib.suppress(MalformedModel):  # anything else is an error from inside the reader
        file = GgufFile(path)
        for name in file.places:
            file.tensor(name)
