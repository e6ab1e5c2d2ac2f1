"""A capture's pages as a redundancy analysis sees them: bases, scopes and shuffled controls, in NumPy and double
precision. For check_report.py."""
import json
import pathlib
import struct
import sys

import numpy as np


class SeededRandom:
    """SplitMix64, as analyzer/redundancy/seeded.h."""

    def __init__(self, seed, stream):
        self.state = ~stream % 2**64
        self.state = (seed + self.next()) % 2**64

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    def below(self, bound):
        return self.next() % bound

    def shuffle(self, values, first, last):
        for i in range(last - 1, first, -1):
            j = first + self.below(i - first + 1)
            values[i], values[j] = values[j], values[i]


class Capture:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text("utf-8"))
        m = self.manifest
        self.layers, self.heads = m["layers"], m["kv_heads"]
        self.tokens, self.dim = m["page_tokens"], m["head_dim"]
        self.pages = m["pages"]
        self.starts = np.array(m["page_starts"], dtype=np.int64)
        self.prompts, self.sets, first = [], {}, 0
        for prompt in m["prompts"]:
            last = first + prompt["pages"]
            self.prompts.append((prompt["set"], first, last))
            low, _ = self.sets.get(prompt["set"], (first, last))
            self.sets[prompt["set"]] = (low, last)
            first = last

    def stored_bytes(self, layer, side):
        width = max(2, len(str(self.layers - 1)))
        path = self.folder / f"layer_{layer:0{width}d}.{side.lower()}.safetensors"
        data = path.read_bytes()
        header_bytes = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + header_bytes])
        entry = header[side.lower()]
        if entry["shape"] != [self.pages, self.heads, self.tokens, self.dim]:
            sys.exit(f"{path}: unexpected shape {entry['shape']}")
        low, high = entry["data_offsets"]
        return data[8 + header_bytes + low : 8 + header_bytes + high]

    def values(self, layer, side, basis):
        """[pages, heads, tokens, dim], f64 of the f32 numbers in the basis asked for."""
        raw = self.stored_bytes(layer, side)
        kind = self.manifest["dtype"]
        if kind == "bf16":
            flat = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            flat = np.frombuffer(raw, {"f16": "<f2", "f32": "<f4"}[kind]).astype(np.float32)
        x = flat.reshape(self.pages, self.heads, self.tokens, self.dim).copy()
        rope = self.manifest.get("rope")
        if side == "K" and rope:
            token = np.arange(self.tokens)[None, :]
            position = self.starts[:, None] + token
            has = {"rotated": position, "plain": 0 * position, "page-relative": token + 0 * position}
            wants = position if basis == "rotated" else 0 * position
            turn = wants - has[self.manifest["key_basis"]]
            half = rope["rotary_dim"] // 2
            inverse = np.array(rope["inverse_frequencies"], dtype=np.float32)
            angle = turn.astype(np.float32)[:, :, None] * inverse
            cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
            a, b = x[..., :half].copy(), x[..., half : 2 * half].copy()
            x[..., :half] = a * cos - b * sin
            x[..., half : 2 * half] = b * cos + a * sin
        return x.astype(np.float64)

    def sides(self):
        if not self.manifest.get("rope"):
            return (("K", "plain"), ("V", None))
        return (("K", "rotated"), ("K", "plain"), ("V", None))

    def is_stored(self, side, basis):
        if side == "V":
            return True
        plain = not self.manifest.get("rope") or self.manifest["key_basis"] == "plain"
        return basis == ("plain" if plain else "rotated")


class Controls:
    def __init__(self, capture, seed):
        tokens = capture.pages * capture.tokens
        everywhere, within = list(range(tokens)), list(range(tokens))
        SeededRandom(seed, 1).shuffle(everywhere, 0, tokens)
        random = SeededRandom(seed, 2)
        for first, last in capture.sets.values():
            random.shuffle(within, first * capture.tokens, last * capture.tokens)
        self.everywhere, self.within = np.array(everywhere), np.array(within)
        anywhere, in_set = SeededRandom(seed, 3), SeededRandom(seed, 4)
        self.partner, self.partner_in_set = [], []
        for first, last in capture.sets.values():
            for page in range(first, last):
                self.partner.append(self.other(anywhere, 0, capture.pages, page))
                self.partner_in_set.append(self.other(in_set, first, last, page) if last - first > 1 else -1)

    @staticmethod
    def other(random, first, last, page):
        draw = first + random.below(last - first - 1)
        return draw + (draw >= page)

    @staticmethod
    def reorder(x, order):
        pages, heads, tokens, dim = x.shape
        by_token = x.transpose(0, 2, 1, 3).reshape(pages * tokens, heads, dim)
        return by_token[order].reshape(pages, tokens, heads, dim).transpose(0, 2, 1, 3)


def inverse(norm):
    return np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)


class Scope:
    """One layer and side, one KV head or all joined."""

    def __init__(self, x, centred):
        self.x = x.reshape(len(x), -1)
        self.c = centred.reshape(len(x), -1)
        self.norm = np.linalg.norm(self.x, axis=1)
        self.c_norm = np.linalg.norm(self.c, axis=1)
        self.c_norm[self.c_norm <= 1e-6 * self.norm] = 0
        size = self.x.shape[1]
        self.top_size = max(1, int(np.floor(size * 0.25 + 0.5)))
        order = np.argsort(-np.abs(self.x), axis=1, kind="stable")[:, : self.top_size]
        self.top = np.zeros(self.x.shape, dtype=np.float32)
        np.put_along_axis(self.top, order, 1.0, axis=1)
        self.sign = np.where(self.c.astype(np.float32) > 0, 1.0, -1.0).astype(np.float32)

    def distances(self, other):
        squared = (self.norm**2)[:, None] + (other.norm**2)[None, :] - 2 * self.x @ other.x.T
        close = squared < 1e-6 * ((self.norm**2)[:, None] + (other.norm**2)[None, :])
        for i, j in zip(*np.nonzero(close)):
            squared[i, j] = np.sum((self.x[i] - other.x[j]) ** 2)
        return np.sqrt(np.maximum(squared, 0))

    def all_pairs(self, metric, other=None):
        other = other or self
        if metric == "cosine":
            return self.x @ other.x.T * inverse(self.norm)[:, None] * inverse(other.norm)[None, :]
        if metric == "cosine_centered":
            return self.c @ other.c.T * inverse(self.c_norm)[:, None] * inverse(other.c_norm)[None, :]
        if metric == "l2_similarity":
            larger = np.maximum(self.norm[:, None], other.norm[None, :])
            return np.where(larger > 0, 1 - self.distances(other) * inverse(larger), 1.0)
        if metric == "hamming":
            return (1 + self.sign @ other.sign.T / self.x.shape[1]) / 2.0
        common = np.rint(self.top @ other.top.T).astype(np.float64)
        return common / (2 * self.top_size - common)

    def pairs(self, metric, partners, other=None):
        """Page i with page partners[i] of `other`."""
        other = other or self
        x, c, j = other.x[partners], other.c[partners], partners
        if metric == "cosine":
            return np.sum(self.x * x, 1) * inverse(self.norm) * inverse(other.norm[j])
        if metric == "cosine_centered":
            return np.sum(self.c * c, 1) * inverse(self.c_norm) * inverse(other.c_norm[j])
        if metric == "l2_similarity":
            larger = np.maximum(self.norm, other.norm[j])
            return np.where(larger > 0, 1 - np.linalg.norm(self.x - x, axis=1) * inverse(larger), 1.0)
        if metric == "hamming":
            return (1 + np.sum(self.sign * other.sign[j], 1, dtype=np.float64) / self.x.shape[1]) / 2
        common = np.sum(self.top * other.top[j], 1, dtype=np.float64)
        return common / (2 * self.top_size - common)


def scopes_of(x, centred):
    joined = {None: Scope(x, centred)}
    for h in range(x.shape[1]):
        joined[h] = Scope(x[:, h], centred[:, h])
    return joined
