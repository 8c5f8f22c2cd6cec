"""`prism convert` from GGUF: every type unpacks to the bits of the gguf package, and is written as it writes it."""

from __future__ import annotations

import subprocess

import gguf
import numpy as np
import pytest

READ = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
WRITTEN = "F32 F16 BF16 Q8_0".split()
ROWS, COLS = 96, 512


def random_blocks(name: str, seed: int) -> np.ndarray:
    """Rows of random bytes; a block with values that float16 lacks, or too small to divide by, is drawn again."""
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (ROWS * COLS // block, size), np.uint8)
    while True:
        with np.errstate(invalid="ignore", over="ignore"):
            wide = gguf.dequantize(blocks, kind)
            largest = np.abs(wide).reshape(len(blocks), -1).max(1)
            bad = ~((largest < 6e4) & (largest > 1e-30))
        if not bad.any():
            return blocks.reshape(ROWS, -1)
        blocks[bad] = random.integers(0, 256, (int(bad.sum()), size), np.uint8)


def unpacked(raw: np.ndarray, name: str) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[name]
    return raw.view(np.float32) if name == "F32" else gguf.dequantize(raw, kind)


def tensors_of(path) -> dict[str, gguf.ReaderTensor]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def finish(writer: gguf.GGUFWriter):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module", params=[0, 5], ids=["one file", "parts of 5"])
def source(tmp_path_factory, request):
    """A file with a matrix and a vector of every type, and their bytes."""
    folder = tmp_path_factory.mktemp("types")
    raw = {name: random_blocks(name, i) for i, name in enumerate(READ)}
    raw |= {f"{name} of a row": raw[name][:1] for name in READ}
    writer = gguf.GGUFWriter(folder / "all.gguf", "none", split_max_tensors=request.param)
    writer.add_string("general.name", "types")
    writer.add_array("some", ["a", "", "c\n"])
    for name, data in raw.items():
        kind = gguf.GGMLQuantizationType[name.split()[0]]
        writer.add_tensor(name, data[0] if "row" in name else data, raw_dtype=kind)
    finish(writer)
    return sorted(folder.glob("all*.gguf"))[-1], raw


@pytest.mark.parametrize("written", WRITTEN)
def test_every_type(tmp_path, command, source, written):
    path, raw = source
    out = tmp_path / "out.gguf"
    options = ["--type", written.lower(), "--license", "MIT"]
    subprocess.run([command, "convert", "-m", path, "-o", out, *options], check=True)
    fields = gguf.GGUFReader(out).fields
    assert fields["general.name"].contents() == "types"
    assert fields["general.license"].contents() == "MIT"
    assert fields["some"].contents() == ["a", "", "c\n"]
    assert "split.count" not in fields
    have = tensors_of(out)
    assert have.keys() == raw.keys()
    for name, data in raw.items():
        kind = name.split()[0]
        wide = unpacked(data, kind)
        wanted = "F32" if "row" in name else written
        assert have[name].tensor_type.name == wanted
        got = have[name].data.reshape(wide.shape[0], -1).view(np.uint8)
        if wanted == kind:
            assert np.array_equal(got, data)
        else:
            bits = gguf.quantize(wide, gguf.GGMLQuantizationType[wanted]).reshape(wide.shape[0], -1).view(np.uint8)
            assert np.array_equal(got, bits), name


def test_refused(tmp_path, command, source):
    path, _ = source
    failed = subprocess.run([command, "convert", "-m", path, "-o", path], capture_output=True, text=True)
    assert failed.returncode == 2 and "is also an input" in failed.stderr
    unknown = tmp_path / "unknown.gguf"
    writer = gguf.GGUFWriter(unknown, "none")
    kind = gguf.GGMLQuantizationType.IQ2_XXS
    writer.add_tensor("t", np.zeros((2, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), raw_dtype=kind)
    finish(writer)
    arguments = [command, "convert", "-m", unknown, "-o", tmp_path / "x.gguf"]
    failed = subprocess.run(arguments, capture_output=True, text=True)
    assert failed.returncode == 3
    assert "tensor t: type IQ2_XXS (16) is not read; llama-quantize" in failed.stderr
