#!/usr/bin/env python3
"""Writes tests/fixtures/models: small random checkpoints of every family with what transformers computes from them.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.15.0 transformers==5.23.0
    /tmp/golden/bin/python scripts/make_golden.py [NAME ...]        # all by default; the same files every time

Each folder tests/fixtures/models/<name>/ holds
    config.json          as the hub spells it (hand-written here, so that old and new spellings are both met)
    model.safetensors    F32 unless the name says otherwise; sharded with an index where the name says so
    golden.json          {"version": 1, "transformers": ..., "tokens": [T ids], "option": what it exercises}
    golden.safetensors   F32, from one forward pass over the T tokens at positions 0 .. T-1, eager attention, f32:
        logits  [T, vocabulary]
        k, v    [layers, kv_heads, T, head_dim], as DynamicCache holds them: k after RoPE
Weights are drawn wide (attention is not uniform, norms and biases are not trivial), so that a wrong option shows.
"""

import json
import os
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "models")
TOKENS = 40
VOCABULARY = 96

OPT = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": VOCABULARY, "hidden_size": 32,
       "word_embed_proj_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
       "max_position_embeddings": 64, "activation_function": "relu", "do_layer_norm_before": True,
       "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": VOCABULARY, "n_embd": 32,
        "n_layer": 2, "n_head": 4, "n_positions": 64, "n_ctx": 64, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "bos_token_id": 95, "eos_token_id": 95}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 32,
         "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 64, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 32}

# name: (what it exercises, config, how the files are written)
MODELS = {
    "opt": ("pre-LN, biases, tied, names model.decoder.*", OPT, {}),
    "opt-post-ln": ("opt-350m: post-LN, projections in and out, head_dim 20, names decoder.*",
                    OPT | {"do_layer_norm_before": False, "hidden_size": 40, "word_embed_proj_dim": 24,
                           "num_attention_heads": 2}, {"rename": ("model.decoder.", "decoder.")}),
    "opt-plain": ("no biases, no affine norms, GELU",
                  OPT | {"enable_bias": False, "layer_norm_elementwise_affine": False,
                         "activation_function": "gelu"}, {}),
    "opt-untied": ("an output of its own", OPT | {"tie_word_embeddings": False}, {}),
    "gpt2": ("gelu_new, tied, the hub's names without transformer., attention mask buffers in the file", GPT2,
             {"rename": ("transformer.", ""), "mask_buffers": True}),
    "gpt2-scaled": ("scale_attn_by_inverse_layer_idx, n_inner, GELU, head_dim 20, names transformer.*",
                    GPT2 | {"n_embd": 40, "n_head": 2, "n_inner": 56, "activation_function": "gelu",
                            "scale_attn_by_inverse_layer_idx": True}, {}),
    "gpt2-unscaled": ("scale_attn_weights false, untied, ReLU",
                      GPT2 | {"scale_attn_weights": False, "tie_word_embeddings": False,
                              "activation_function": "relu"}, {}),
    "llama": ("GQA 4 to 2, untied", LLAMA, {}),
    "llama-tied-bias": ("tied, attention and MLP biases, head_dim 16 that is not hidden / heads, no GQA",
                        LLAMA | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
                                 "head_dim": 16, "num_key_value_heads": 4}, {}),
    "llama3-rope": ("llama3 RoPE scaling, with channels below, between and above its bounds, head_dim 16, one KV head",
                    LLAMA | {"rope_theta": 20000.0, "head_dim": 16, "num_key_value_heads": 1,
                             "rope_scaling": LLAMA3_SCALING}, {}),
    "llama-linear-rope": ("linear RoPE scaling in the old spelling (type), no num_key_value_heads, head_dim 20",
                          {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"} |
                          {"hidden_size": 40, "num_attention_heads": 2,
                           "rope_scaling": {"type": "linear", "factor": 4.0}}, {}),
    "llama-rope-parameters": ("linear RoPE scaling as transformers 5 writes it (rope_parameters)",
                              {k: v for k, v in LLAMA.items() if k != "rope_theta"} |
                              {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}}, {}),
    "mistral": ("GQA 4 to 1, no sliding window",
                LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral",
                         "num_key_value_heads": 1, "sliding_window": None, "head_dim": 16}, {}),
    "qwen2": ("biases on Q, K and V alone, tied, sliding window present and switched off",
              LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True,
                       "use_sliding_window": False, "sliding_window": 16, "max_window_layers": 2,
                       "rope_theta": 1000000.0, "rms_norm_eps": 1e-6}, {}),
    "llama-f16": ("F16 weights", LLAMA, {"dtype": torch.float16}),
    "llama-bf16": ("BF16 weights", LLAMA, {"dtype": torch.bfloat16}),
    "llama-sharded": ("three shards and an index", LLAMA, {"shards": 3}),
}


def randomize(model, dtype):
    """Wide weights, rounded to what the file will hold."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name or ".ln_" in name:
                value.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            elif name.endswith("bias"):
                value.normal_(0.0, 0.2)
            elif "embed" in name or name.endswith(("wte.weight", "wpe.weight")):
                value.normal_(0.0, 0.7)
            else:
                inputs = value.shape[0] if ".c_" in name else value.shape[1]  # GPT-2 keeps its matrices transposed
                value.normal_(0.0, 1.6 / inputs**0.5)
            value.copy_(value.to(dtype).float())


def state_of(model, config, rename=("", ""), mask_buffers=False, dtype=torch.float32, **_):
    tied = model.config.tie_word_embeddings
    state = {name.replace(rename[0], rename[1], 1) if rename[0] else name: value.to(dtype).contiguous().clone()
             for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    if mask_buffers:
        positions = config["n_positions"]
        mask = torch.ones(positions, positions).tril().bool().view(1, 1, positions, positions)
        state |= {f"h.{i}.attn.bias": mask.clone() for i in range(config["n_layer"])}
    return state


def write_weights(folder, state, shards=1):
    if shards == 1:
        save_file(state, os.path.join(folder, "model.safetensors"), {"format": "pt"})
        return
    names = sorted(state)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i::shards]
        save_file({name: state[name] for name in part}, os.path.join(folder, file), {"format": "pt"})
        weight_map |= {name: file for name in part}
    write_json(os.path.join(folder, "model.safetensors.index.json"),
               {"metadata": {"total_size": sum(v.numel() * v.element_size() for v in state.values())},
                "weight_map": weight_map})


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def make(name):
    option, config, how = MODELS[name]
    folder = os.path.join(FOLDER, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    write_json(os.path.join(folder, "config.json"), config)
    torch.manual_seed(sum(map(ord, name.removesuffix("-f16").removesuffix("-bf16").removesuffix("-sharded"))))
    parsed = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(parsed, attn_implementation="eager", dtype=torch.float32)
    model.eval()
    randomize(model, how.get("dtype", torch.float32))
    tokens = torch.randint(0, VOCABULARY, (1, TOKENS))
    with torch.no_grad():
        out = model(tokens, use_cache=True)
    layers = out.past_key_values.layers
    golden = {"logits": out.logits[0], "k": torch.stack([layer.keys[0] for layer in layers]),
              "v": torch.stack([layer.values[0] for layer in layers])}
    assert all(torch.isfinite(value).all() for value in golden.values())
    write_weights(folder, state_of(model, config, **how), how.get("shards", 1))
    save_file({key: value.contiguous() for key, value in golden.items()}, os.path.join(folder, "golden.safetensors"))
    write_json(os.path.join(folder, "golden.json"), {
        "version": 1, "transformers": transformers.__version__, "option": option, "tokens": tokens[0].tolist()})
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    spread = torch.softmax(out.logits[0], -1).max(-1).values.mean().item()
    size = sum(os.path.getsize(os.path.join(folder, file)) for file in os.listdir(folder))
    print(f"{name}: {size} bytes, k {list(golden['k'].shape)}, mean top probability {spread:.2f}, "
          f"logits up to {out.logits.abs().max():.1f}")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or MODELS:
        make(chosen)
