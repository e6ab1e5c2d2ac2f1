"""The KV cache of scripts/reference_quant.py: f32 arrays that hold what a compressed cache would read back.

Keys and values are kept as the numbers that reading them would give (quantized and dequantized), not as packed bytes:
this is a reference of numerics. Keys lie in the recipe's basis; attention reads them rotated.
"""

import numpy as np

SIDES = ("k", "v")


def round_to(x, dtype):
    """f32 numbers as `dtype` stores them, to the nearest, halves to even."""
    x = np.asarray(x, dtype=np.float32)
    if dtype == "f32":
        return x
    if dtype == "f16":
        return x.astype(np.float16).astype(np.float32)
    if dtype == "bf16":
        bits = x.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    # fp8 (arXiv 2209.05433): 3 or 2 stored bits of precision, subnormals, the largest number instead of overflow
    precision, least, most = {"fp8_e4m3": (3, -6, 448.0), "fp8_e5m2": (2, -14, 57344.0)}[dtype]
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(x), 2.0 ** -40, dtype=np.float64))), least)
    unit = 2.0 ** (exponent - precision)
    return np.clip(np.rint(x / unit) * unit, -most, most).astype(np.float32)


class Cache:
    """One sequence of one recipe. plan: a list of (method, {side: bool [layers, kv_heads]}) of the recipe's
    statements; a method is run on each full page once its time has come."""

    def __init__(self, model, context, page_tokens, fill="f16", key_basis="rotated", plan=()):
        self.model, self.page_tokens, self.fill, self.key_basis = model, page_tokens, fill, key_basis
        shape = (model.layers, model.kv_heads, context, model.head_dim)
        self.stored = {side: np.zeros(shape, dtype=np.float32) for side in SIDES}
        self.read_keys = self.stored["k"] if key_basis == "rotated" else np.zeros(shape, dtype=np.float32)
        self.tokens = 0
        self.plan = plan
        self.next_page = [0 for _ in plan]
        self.mass = None  # [layers, kv_heads, tokens]: where there is one, attention that each token received is added
        for method, _ in plan:
            method.begin(shape, page_tokens)

    def offsets(self, positions):
        """By how much a stored key at each position is rotated already."""
        if self.key_basis == "rotated":
            return positions
        return positions % self.page_tokens if self.key_basis == "page-relative" else 0 * positions

    def attend(self, layer, q, k, v):
        """Appends k, v [kv_heads, rows, head_dim] (k before RoPE); returns causal attention of q [heads, rows,
        head_dim] over all tokens, [rows, heads * head_dim]."""
        model, rows = self.model, q.shape[1]
        new = slice(self.tokens, self.tokens + rows)
        positions = np.arange(self.tokens, self.tokens + rows)
        self.stored["k"][layer, :, new] = round_to(model.rope.rotate(k, self.offsets(positions)), self.fill)
        self.stored["v"][layer, :, new] = round_to(v, self.fill)
        self.refresh(layer, new)
        keys = self.read_keys[layer, :, :new.stop]
        values = self.stored["v"][layer, :, :new.stop]
        group = model.heads // model.kv_heads
        scale = np.float32(1.0 / np.sqrt(model.head_dim))
        queries = (model.rope.rotate(q, positions) * scale).reshape(model.kv_heads, group * rows, model.head_dim)
        scores = (queries @ keys.transpose(0, 2, 1)).reshape(model.kv_heads, group, rows, new.stop)
        scores[..., new] += np.triu(np.full((rows, rows), -np.inf, dtype=np.float32), 1)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        if self.mass is not None:
            self.mass[layer, :, :new.stop] += (scores / total).sum(axis=2).mean(axis=1)
        out = (scores.reshape(model.kv_heads, group * rows, new.stop) @ values).reshape(
            model.kv_heads, group, rows, model.head_dim) / total
        return out.transpose(2, 0, 1, 3).reshape(rows, -1)

    def refresh(self, layers, tokens):
        """Makes the keys that attention reads from the stored ones."""
        if self.key_basis == "rotated":
            return
        positions = np.arange(tokens.start, tokens.stop)
        self.read_keys[layers, :, tokens] = self.model.rope.rotate(self.stored["k"][layers, :, tokens],
                                                                   positions - self.offsets(positions))

    def end_step(self, rows):
        self.tokens += rows
        for index, (method, masks) in enumerate(self.plan):
            if self.tokens < method.tokens_to_begin:
                continue
            due = max(0, self.tokens - method.window) // self.page_tokens
            for page in range(self.next_page[index], due):
                self.compress(method, masks, slice(page * self.page_tokens, (page + 1) * self.page_tokens))
            self.next_page[index] = max(due, self.next_page[index])

    def compress(self, method, masks, tokens):
        for side in SIDES:
            if masks[side].any():
                method.run(self.stored[side], side, masks[side], tokens)
        self.refresh(slice(None), tokens)
