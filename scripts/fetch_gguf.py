"""Converts a llama GGUF into Hugging Face layout: config.json, model.safetensors, tokenizer files.

Weights are dequantized and stored as F16; STORED_DTYPE says so in the model's identity. F16 rounds a
dequantized Q4_1 weight by at most 2^-11 of it, hundreds of times less than the quantization did.
"""

import os

import numpy as np

from fetch_common import FetchError, write_json, write_safetensors

STORED_DTYPE = "F16"

# GGUF's name of a tensor inside blk.N. -> Hugging Face's inside model.layers.N.
BLOCK_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# llama.cpp's name of a pre-tokenizer -> the same in tokenizer.json.
PRE_TOKENIZERS = {
    "smollm": [{"type": "Digits", "individual_digits": True},
               {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}],
}
TOKEN_CONTROL, TOKEN_USER_DEFINED = 3, 4  # llama.cpp's token types


def convert_gguf(path, folder):
    """Writes the model of the GGUF file into `folder`."""
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise FetchError(f"{path}: architecture {architecture!r} is not supported here (supported: 'llama')")
    tensors = {}
    for tensor in reader.tensors:
        name, values = convert_tensor(tensor, fields)
        tensors[name] = ("float16", values)
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    write_json(os.path.join(folder, "config.json"), config_of(fields, "lm_head.weight" not in tensors))
    write_tokenizer(path, fields, folder)


def convert_tensor(tensor, fields):
    """(Hugging Face name, F16 values) of one GGUF tensor."""
    import gguf

    parts = tensor.name.split(".", 2)
    if tensor.name in TOP_NAMES:
        name = TOP_NAMES[tensor.name]
    elif parts[0] == "blk" and len(parts) == 3 and parts[2] in BLOCK_NAMES:
        name = f"model.layers.{int(parts[1])}.{BLOCK_NAMES[parts[2]]}"
    else:
        raise FetchError(f"tensor {tensor.name}: not a tensor of a llama model that can be converted")
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if name.endswith("q_proj.weight"):
        values = unpermute(values, fields["llama.attention.head_count"])
    elif name.endswith("k_proj.weight"):
        values = unpermute(values, fields["llama.attention.head_count_kv"])
    half = np.ascontiguousarray(values, dtype=np.float16)
    if not np.isfinite(half).all():
        raise FetchError(f"tensor {tensor.name}: a weight is not finite as F16")
    return name, half


def unpermute(rows, heads):
    """Undoes the order of Q and K rows in llama GGUFs, which pairs rotated channels (2i, 2i+1) where Hugging
    Face pairs (i, i + head_dim/2)."""
    half_dim = rows.shape[0] // heads // 2
    return rows.reshape(heads, half_dim, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def config_of(fields, tied):
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "max_position_embeddings": fields["llama.context_length"],
        "hidden_act": "silu",
        # GGUF keeps f32; the shortest decimal is what the original config said.
        "rms_norm_eps": float(str(np.float32(fields["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float16",
    }


def write_tokenizer(path, fields, folder):
    """tokenizer.json, tokenizer_config.json and generation_config.json from the GGUF's vocabulary."""
    from tokenizers import Tokenizer

    model, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        raise FetchError(f"{path}: tokenizer {model!r} with pre-tokenizer {pre!r} is not supported here "
                         f"(supported: 'gpt2' with {', '.join(PRE_TOKENIZERS)})")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    added = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": kind == TOKEN_CONTROL}
             for i, kind in enumerate(types) if kind in (TOKEN_CONTROL, TOKEN_USER_DEFINED)]
    description = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)},
                  "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]]},
    }
    file = os.path.join(folder, "tokenizer.json")
    write_json(file, description)
    Tokenizer.from_file(file).save(file)  # refuses a vocabulary that does not hold together

    names = {role: tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
             for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
             if f"tokenizer.ggml.{key}_token_id" in fields}
    write_json(os.path.join(folder, "tokenizer_config.json"), {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": bool(fields.get("tokenizer.ggml.add_space_prefix", False)),
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", False)),
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        **{f"{role}_token": token for role, token in names.items()},
        "chat_template": fields.get("tokenizer.chat_template"),
    })
    write_json(os.path.join(folder, "generation_config.json"), {
        f"{key}_token_id": fields[f"tokenizer.ggml.{name}_token_id"]
        for key, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        if f"tokenizer.ggml.{name}_token_id" in fields})
