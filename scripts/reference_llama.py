"""A Llama-family decoder in f32, in plain NumPy: the outside reference of scripts/reference_quant.py.

Written from the papers (RMSNorm arXiv 1910.07467, RoPE 2104.09864, SwiGLU 2002.05202, GQA 2305.13245) and the layout
of Hugging Face checkpoints; it shares nothing with kvanalyze's C++. Llama, Mistral and Qwen2 without RoPE scaling.
"""

import json
import pathlib

import numpy as np
from safetensors import safe_open


class InputError(Exception):
    """The user's or a file's fault, in one line."""


class Rope:
    """Half-split rotation; angles are f32 products of position and inverse frequency, as transformers has them."""

    def __init__(self, head_dim, theta, positions):
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        inverse = (1.0 / np.float32(theta) ** exponents).astype(np.float32)
        angles = np.arange(positions, dtype=np.float32)[:, None] * inverse
        self.cos, self.sin = np.cos(angles), np.sin(angles)

    def rotate(self, rows, positions):
        """rows [..., tokens, head_dim] by positions [tokens]; negative ones rotate back."""
        cos, sin = self.cos[np.abs(positions)], self.sin[np.abs(positions)] * np.sign(positions)[:, None]
        cos, sin = cos.astype(np.float32), sin.astype(np.float32)
        low, high = np.split(rows, 2, axis=-1)
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def read_config(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = config.get("model_type")
    if family not in ("llama", "mistral", "qwen2"):
        raise InputError(f"{folder}/config.json: model_type: expected llama, mistral or qwen2, found {family}")
    if config.get("rope_scaling") or config.get("rope_parameters"):
        raise InputError(f"{folder}/config.json: rope_scaling: expected none, found one; use another model")
    if config.get("hidden_act", "silu") != "silu":
        raise InputError(f"{folder}/config.json: hidden_act: expected silu, found {config['hidden_act']}")
    return config


def read_tensors(folder):
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    else:
        files = [path for path in files if path.name == "model.safetensors"]
    tensors = {}
    for path in files:
        with safe_open(path, framework="numpy") as opened:
            for name in opened.keys():
                tensors[name] = opened.get_tensor(name).astype(np.float32)
    if not tensors:
        raise InputError(f"{folder}: expected model.safetensors, found none; convert the model first")
    return tensors


def silu(x):
    return x / (1.0 + np.exp(-x))


class Llama:
    """Weights and one step of many caches at once: all of them see the same tokens."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        config = read_config(folder)
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.hidden = config["hidden_size"]
        self.head_dim = config.get("head_dim") or self.hidden // self.heads
        self.epsilon = np.float32(config["rms_norm_eps"])
        self.max_positions = config["max_position_embeddings"]
        self.rope = Rope(self.head_dim, config.get("rope_theta", 10000.0), self.max_positions)
        self.tensors = read_tensors(folder)
        self.embedding = self.tensors["model.embed_tokens.weight"]
        tied = config.get("tie_word_embeddings", False)
        self.output = self.embedding if tied else self.tensors["lm_head.weight"]

    def linear(self, name, x):
        out = x @ self.tensors[name + ".weight"].T
        bias = self.tensors.get(name + ".bias")
        return out if bias is None else out + bias

    def norm(self, name, x):
        mean = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
        return x / np.sqrt(mean + self.epsilon) * self.tensors[name + ".weight"]

    def step(self, tokens, caches):
        """Feeds `tokens` to every cache. Returns the hidden states [caches, tokens, hidden] before the output."""
        count, rows = len(caches), len(tokens)
        x = np.tile(self.embedding[np.asarray(tokens)], (count, 1))
        for layer in range(self.layers):
            name = f"model.layers.{layer}."
            normed = self.norm(name + "input_layernorm", x)
            q, k, v = (self.split(self.linear(f"{name}self_attn.{part}_proj", normed), count, rows) for part in "qkv")
            seen = np.concatenate([cache.attend(layer, q[i], k[i], v[i]) for i, cache in enumerate(caches)])
            x = x + self.linear(name + "self_attn.o_proj", seen)
            normed = self.norm(name + "post_attention_layernorm", x)
            gate = silu(self.linear(name + "mlp.gate_proj", normed))
            x = x + self.linear(name + "mlp.down_proj", gate * self.linear(name + "mlp.up_proj", normed))
        for cache in caches:
            cache.end_step(rows)
        return x.reshape(count, rows, self.hidden)

    def split(self, x, count, rows):
        """[count * rows, heads * head_dim] as [count, heads, rows, head_dim]."""
        return x.reshape(count, rows, -1, self.head_dim).transpose(0, 2, 1, 3)

    def logits(self, hidden):
        return self.norm("model.norm", hidden) @ self.output.T
