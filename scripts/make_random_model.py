#!/usr/bin/env python3
"""Writes a model folder in Hugging Face layout with random weights: for tests, demonstrations and bug reports.

    make_random_model.py FOLDER --family opt --layers 12 --heads 12 --head-dim 64 --vocab 50272   # OPT-125m's shape

The tokenizer is byte-level without merges (one token a byte), so any text works. The weights mean nothing: figures
from such a model say something about the program, never about a language model.
"""
import argparse
import json
import pathlib

import numpy as np
from safetensors.numpy import save_file


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = {byte: chr(byte) for byte in keep}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + sum(1 for b in range(byte) if b not in keep))
    return [letters[byte] for byte in range(256)]


def linear(random, rows, cols, scale=1.0):
    return random.normal(0, scale / np.sqrt(cols), (rows, cols))


def opt(a, random):
    hidden = a.heads * a.head_dim
    t = {
        "model.decoder.embed_tokens.weight": random.normal(0, 0.5, (a.vocab, hidden)),
        "model.decoder.embed_positions.weight": random.normal(0, 0.1, (a.positions + 2, hidden)),
    }
    norms = ["model.decoder.final_layer_norm"]
    for i in range(a.layers):
        p = f"model.decoder.layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            t[p + f"self_attn.{name}.weight"] = linear(random, hidden, hidden)
            t[p + f"self_attn.{name}.bias"] = random.normal(0, 0.02, hidden)
        t[p + "fc1.weight"] = linear(random, 4 * hidden, hidden)
        t[p + "fc1.bias"] = random.normal(0, 0.02, 4 * hidden)
        t[p + "fc2.weight"] = linear(random, hidden, 4 * hidden)
        t[p + "fc2.bias"] = random.normal(0, 0.02, hidden)
        norms += [p + "self_attn_layer_norm", p + "final_layer_norm"]
    for norm in norms:
        t[norm + ".weight"] = random.normal(1, 0.05, hidden)
        t[norm + ".bias"] = random.normal(0, 0.02, hidden)
    config = {
        "architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": hidden,
        "num_hidden_layers": a.layers, "num_attention_heads": a.heads, "ffn_dim": 4 * hidden,
        "vocab_size": a.vocab, "max_position_embeddings": a.positions, "word_embed_proj_dim": hidden,
        "activation_function": "relu", "do_layer_norm_before": True, "enable_bias": True,
        "layer_norm_elementwise_affine": True, "tie_word_embeddings": True,
        "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,
    }
    return config, t


def gpt2(a, random):
    hidden = a.heads * a.head_dim
    t = {
        "wte.weight": random.normal(0, 0.5, (a.vocab, hidden)),
        "wpe.weight": random.normal(0, 0.1, (a.positions, hidden)),
    }
    norms = ["ln_f"]
    for i in range(a.layers):
        p = f"h.{i}."
        for name, rows, cols in (("attn.c_attn", hidden, 3 * hidden), ("attn.c_proj", hidden, hidden),
                                 ("mlp.c_fc", hidden, 4 * hidden), ("mlp.c_proj", 4 * hidden, hidden)):
            t[p + name + ".weight"] = linear(random, cols, rows).T
            t[p + name + ".bias"] = random.normal(0, 0.02, cols)
        norms += [p + "ln_1", p + "ln_2"]
    for norm in norms:
        t[norm + ".weight"] = random.normal(1, 0.05, hidden)
        t[norm + ".bias"] = random.normal(0, 0.02, hidden)
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": hidden, "n_layer": a.layers,
        "n_head": a.heads, "n_positions": a.positions, "n_ctx": a.positions, "vocab_size": a.vocab,
        "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "bos_token_id": 2, "eos_token_id": 2,
    }
    return config, t


def llama(a, random):
    hidden, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    ffn = 8 * hidden // 3
    t = {"model.embed_tokens.weight": random.normal(0, 0.5, (a.vocab, hidden))}
    norms = ["model.norm"]
    for i in range(a.layers):
        p = f"model.layers.{i}."
        for name, rows, cols in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden),
                                 ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, hidden),
                                 ("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden),
                                 ("mlp.down_proj", hidden, ffn)):
            t[p + name + ".weight"] = linear(random, rows, cols)
        norms += [p + "input_layernorm", p + "post_attention_layernorm"]
    for norm in norms:
        t[norm + ".weight"] = random.normal(1, 0.05, hidden)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "num_hidden_layers": a.layers, "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim, "intermediate_size": ffn, "vocab_size": a.vocab,
        "max_position_embeddings": a.positions, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 2,
    }
    return config, t


def write_tokenizer(a):
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate(special + byte_alphabet())}
    if a.family in ("opt", "gpt2"):  # as facebook/opt-125m and gpt2 ship it
        (a.folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        (a.folder / "merges.txt").write_text("#version: 0.2\n")
        return
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    (a.folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for i, token in enumerate(special)],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                  "merges": []},
    }, ensure_ascii=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--family", choices=["opt", "gpt2", "llama"], default="llama")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, help="llama only; default: half of --heads")
    parser.add_argument("--head-dim", type=int, default=16)
    parser.add_argument("--vocab", type=int, default=260, help="at least 260: 4 special tokens and 256 bytes")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if a.vocab < 260:
        parser.error("--vocab: expected at least 260")
    a.kv_heads = a.kv_heads or max(1, a.heads // 2)

    config, tensors = {"opt": opt, "gpt2": gpt2, "llama": llama}[a.family](a, np.random.default_rng(a.seed))
    config["torch_dtype"] = a.dtype
    a.folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(t, dtype=a.dtype) for name, t in tensors.items()},
              a.folder / "model.safetensors", metadata={"format": "pt"})
    (a.folder / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(a)
    (a.folder / "kvanalyze.json").write_text(json.dumps({
        "name": f"random-{a.family}", "repository": "scripts/make_random_model.py", "revision": f"seed {a.seed}",
        "variant": "random weights", "source_quantization": ""}))


if __name__ == "__main__":
    main()
