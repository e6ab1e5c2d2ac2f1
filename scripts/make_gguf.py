#!/usr/bin/env python3
"""Writes a llama model in Hugging Face layout as a GGUF file, so that llama.cpp runs the very same weights.

    make_gguf.py FOLDER FILE [--type f32|bf16|q8_0]

Matrices are stored in the type asked for (bf16 rounds to nearest even), vectors in f32. The file has no
tokenizer: whoever runs it brings token ids. fetch_gguf.py is the way back.
"""

import argparse
import json
import os
import sys

import numpy as np

from fetch_common import FetchError
from fetch_gguf import BLOCK_NAMES, TOP_NAMES

SOURCE_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def permute(rows, heads):
    """Undoes fetch_gguf.unpermute: pairs rotated channels (2i, 2i+1) as llama GGUFs do."""
    half_dim = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half_dim, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def read_tensors(path):
    """{name: f32 array} of a safetensors file."""
    from safetensors import deserialize

    with open(path, "rb") as file:
        stored = deserialize(file.read())
    tensors = {}
    for name, about in stored:
        if about["dtype"] not in SOURCE_TYPES:
            raise FetchError(f"{path}: tensor {name}: expected F32, F16 or BF16, found {about['dtype']}")
        values = np.frombuffer(about["data"], dtype=SOURCE_TYPES[about["dtype"]]).reshape(about["shape"])
        if about["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values.astype(np.float32)
    return tensors


def gguf_tensors(tensors, config):
    """(GGUF name, f32 array) of every tensor of the model."""
    by_name = {hf: name for name, hf in TOP_NAMES.items()}
    in_block = {hf: name for name, hf in BLOCK_NAMES.items()}
    for name, values in sorted(tensors.items()):
        if name in by_name:
            if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            yield by_name[name], values
            continue
        parts = name.split(".", 3)
        if parts[:2] != ["model", "layers"] or parts[3] not in in_block:
            raise FetchError(f"tensor {name}: not a tensor of a llama model that can be converted")
        if name.endswith("q_proj.weight"):
            values = permute(values, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            values = permute(values, config["num_key_value_heads"])
        yield f"blk.{int(parts[2])}.{in_block[parts[3]]}", values


def write_gguf(folder, path, kind):
    import gguf

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config.get("model_type") != "llama" or config.get("rope_scaling"):
        raise FetchError(f"{folder}: expected a llama model without rope_scaling, found {config.get('model_type')!r}")
    tensors = read_tensors(os.path.join(folder, "model.safetensors"))
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    beside = path + ".part"
    writer = gguf.GGUFWriter(beside, "llama")
    writer.add_name(os.path.basename(os.path.normpath(folder)))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("no_vocab")
    of_matrices = gguf.GGMLQuantizationType[kind.upper()]
    for name, values in gguf_tensors(tensors, config):
        if kind != "f32" and values.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(values, of_matrices), raw_dtype=of_matrices)
        else:
            writer.add_tensor(name, values)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    os.replace(beside, path)


def main():
    parser = argparse.ArgumentParser(description="Writes a llama model in Hugging Face layout as a GGUF file.")
    parser.add_argument("folder", help="of config.json and model.safetensors")
    parser.add_argument("file", help="the GGUF file to write")
    parser.add_argument("--type", choices=["f32", "bf16", "q8_0"], default="bf16", help="of the matrices")
    arguments = parser.parse_args()
    try:
        write_gguf(arguments.folder, arguments.file, arguments.type)
        return 0
    except ImportError as error:
        print(f"make_gguf: {error}; run scripts/quickstart once", file=sys.stderr)
    except (FetchError, OSError, KeyError) as error:
        print(f"make_gguf: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
