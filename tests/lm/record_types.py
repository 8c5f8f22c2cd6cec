#!/usr/bin/env python3
"""Records what the gguf package unpacks, for test_formats.c to compare with. Run again only when a type is added.

    python tests/lm/record_types.py

Needs gguf. Writes tests/lm/data/types.gguf: for every type the tensor NAME, random bytes, and NAME.f32, its elements.
"""
import pathlib

import gguf
import numpy as np

TYPES = "F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
ELEMENTS = 768


def main():
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(pathlib.Path(__file__).parent / "data" / "types.gguf", "none")
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        raw = random.integers(0, 256, (1, ELEMENTS // block * size), np.uint8)
        with np.errstate(invalid="ignore"):
            wide = gguf.dequantize(raw, kind)
        writer.add_tensor(name, raw, raw_dtype=kind)
        writer.add_tensor(name + ".f32", wide.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
