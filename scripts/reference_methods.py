"""Compression methods of scripts/reference_quant.py, written from their papers; arrays in, arrays out.

Quantizers work on x [..., tokens, head_dim], the trailing two axes being one page side of one KV head, and return what
decoding gives. Groups: "token" axes share a scale among `group` neighbouring channels of a token, "channel" axes among
`group` neighbouring tokens of a channel; the last group has what is left. Scales and zero points are rounded to f16
before the codes are made, so that the codes suit what is stored.
"""

import math

import numpy as np

from reference_cache import round_to

AXES = {"token": -1, "channel": -2}


def axes_of(name, side):
    """"token" or "channel": of which a scale is. KIVI's are the channel for keys and the token for values."""
    if name == "kivi":
        return "channel" if side == "k" else "token"
    return "channel" if name == "channel" else "token"


def group_starts(length, group):
    return np.arange(0, length, group)


def spread(values, axis, group, length):
    """One value a group, repeated for each number of the group."""
    counts = np.diff(np.append(group_starts(length, group), length))
    return np.repeat(values, counts, axis=axis)


def reduce_groups(operation, x, axis, group):
    return operation.reduceat(x, group_starts(x.shape[axis], group), axis=axis)


def quantize(x, bits, axes, group, symmetric=False, kept=None):
    """Round to nearest with one scale a group. kept: bool like x, numbers that stay f16 and do not count for ranges.

    Asymmetric (ZeroQuant arXiv 2206.01861, KIVI 2402.02750): zero = min, scale = (max - min) / (2^bits - 1).
    Symmetric: scale = max |x| / (2^(bits-1) - 1), codes from -2^(bits-1) to 2^(bits-1) - 1.
    """
    x = np.asarray(x, dtype=np.float32)
    axis, length = AXES[axes], x.shape[AXES[axes]]
    kept = np.zeros(x.shape, dtype=bool) if kept is None else kept
    if symmetric:
        most = reduce_groups(np.maximum, np.where(kept, 0.0, np.abs(x)), axis, group)
        low, high, zero = -2.0 ** (bits - 1), 2.0 ** (bits - 1) - 1, np.zeros_like(most)
        scale = most / np.float32(high)
    else:
        least = reduce_groups(np.minimum, np.where(kept, np.inf, x), axis, group)
        most = reduce_groups(np.maximum, np.where(kept, -np.inf, x), axis, group)
        empty = least > most
        least, most = np.where(empty, 0.0, least), np.where(empty, 0.0, most)
        low, high, zero = 0.0, 2.0 ** bits - 1, least
        scale = (most - least) / np.float32(high)
    scale, zero = (spread(round_to(part, "f16"), axis, group, length) for part in (scale, zero))
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(scale > 0, np.clip(np.rint((x - zero) / scale), low, high), 0.0).astype(np.float32)
    return np.where(kept, round_to(x, "f16"), codes * scale + zero)


def largest(x, count):
    """bool like x: in each page side the `count` largest numbers, the first ones where they tie."""
    flat = x.reshape(x.shape[:-2] + (-1,))
    if count == 0:
        return np.zeros(x.shape, dtype=bool)
    least = np.partition(flat, -count, axis=-1)[..., -count, None]
    above, ties = flat > least, flat == least
    free = count - above.sum(axis=-1, keepdims=True)
    return (above | (ties & (np.cumsum(ties, axis=-1) <= free))).reshape(x.shape)


def outlier_mask(x, share, axes, group, kept):
    """The numbers taken out before the ranges: of each page side exactly ceil(share * numbers), those farthest from
    the mean of their group, by the root of the group's deviation; numbers that are kept anyway count for nothing."""
    axis, length = AXES[axes], x.shape[AXES[axes]]

    def mean(values):
        sums = reduce_groups(np.add, np.where(kept, 0.0, values.astype(np.float64)), axis, group)
        counts = reduce_groups(np.add, (~kept).astype(np.float64), axis, group)
        return spread(sums / np.maximum(counts, 1), axis, group, length)

    distance = np.abs(x.astype(np.float64) - mean(x))
    deviation = np.sqrt(mean(distance ** 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(deviation > 0, distance / np.sqrt(deviation), 0.0)
    return largest(np.where(kept, -1.0, relative), math.ceil(share * x.shape[-1] * x.shape[-2]))


def hadamard(width):
    """Sylvester's matrix over sqrt(width): symmetric, its own inverse."""
    if width & (width - 1):
        raise ValueError(f"a Hadamard matrix of {width}: expected a power of 2")
    matrix = np.ones((1, 1))
    while len(matrix) < width:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / math.sqrt(width)).astype(np.float32)


def norm_corrected(decoded, x):
    """Each token scaled to the length that it had; the factor is f16."""
    length = np.linalg.norm(decoded, axis=-1, keepdims=True)
    factor = np.where(length > 0, np.linalg.norm(x, axis=-1, keepdims=True) / np.maximum(length, 1e-30), 1.0)
    return decoded * round_to(factor, "f16")


class Method:
    """run() replaces tokens [slice] of the cells [layers, kv_heads] in `mask` by what decoding them gives."""
    window = 0
    tokens_to_begin = 0
    learns = False  # learn(sample, masks) first, which gives `learnt`
    learnt = None

    def begin(self, shape, page_tokens):
        """shape: [layers, kv_heads, tokens, head_dim] of the cache, before anything else."""

    def run(self, stored, side, mask, tokens):
        stored[mask, tokens] = self.decoded(stored[mask, tokens], side, tokens.start)

    def decoded(self, rows, side, start):
        raise NotImplementedError


class Dense(Method):
    def __init__(self, options):
        self.type = options["type"]

    def decoded(self, rows, side, start):
        return round_to(rows, self.type)


# Parameters of quant in the order that values without a name fill, with their defaults.
QUANT = {"bits": 4, "k": None, "v": None, "axes": "token", "group": "page", "symmetric": False, "outliers": 0.0,
         "dense_channels": 0, "rotate": False, "norm_correct": False, "sinks": 0, "window": 0}


class Quant(Method):
    def __init__(self, options):
        self.options = options
        self.window = options["window"]

    def groups_of(self, side, head_dim, page_tokens):
        """("token" or "channel", numbers of a group)"""
        axes = axes_of(self.options["axes"], side)
        whole = page_tokens if axes == "channel" else head_dim
        group = self.options["group"]
        return axes, whole if group in ("page", "head") else min(group, whole)

    def decoded(self, rows, side, start):
        options = self.options
        bits = options[side] or options["bits"]
        if bits == 16:
            return rows
        axes, group = self.groups_of(side, rows.shape[-1], rows.shape[-2])
        x = rows @ hadamard(rows.shape[-1]) if options["rotate"] else rows
        kept = np.zeros(x.shape, dtype=bool)
        kept[..., :max(0, options["sinks"] - start), :] = True
        if options["dense_channels"]:
            kept |= self.widest_channels(x, options["dense_channels"])
        if options["outliers"]:
            kept |= outlier_mask(x, options["outliers"], axes, group, kept)
        decoded = quantize(x, bits, axes, group, options["symmetric"], kept)
        if options["norm_correct"]:
            decoded = norm_corrected(decoded, x)
        return decoded @ hadamard(rows.shape[-1]) if options["rotate"] else decoded

    @staticmethod
    def widest_channels(x, count):
        spans = x.max(axis=-2, keepdims=True) - x.min(axis=-2, keepdims=True)
        return np.broadcast_to(largest(spans, count), x.shape)


class Gear(Method):
    """GEAR (arXiv 2403.05527): codes, outliers, and the best low-rank part A B of what both lose, A and B f16. The paper's
    low-rank part is of a prompt, here of a page side; outliers are chosen as quant chooses them."""

    def __init__(self, options):
        self.rank = options["rank"]
        self.quant = Quant(QUANT | {name: options[name] for name in ("bits", "outliers", "axes", "group")})

    def decoded(self, rows, side, start):
        coded = self.quant.decoded(rows, side, start)
        lost = (rows - coded).astype(np.float64)
        # Eigenvectors of the squares, the last ones of the largest eigenvalues, are the right singular vectors.
        vectors = np.linalg.eigh(lost.swapaxes(-1, -2) @ lost)[1]
        right = round_to(vectors[..., -self.rank:].swapaxes(-1, -2), "f16")
        left = round_to(lost @ right.swapaxes(-1, -2), "f16")
        return coded + left @ right


class LowRank(Method):
    """Pages hold coefficients, f16 or what `inner` makes of them, of an f16 basis: the leading right singular vectors (not
    centred) of the sequence's first fit_tokens rows, of each layer, head and side; with layers=G of G layers' heads side
    by side, which share their coefficients (xKV, arXiv 2503.18893)."""

    def __init__(self, options, inner=None):
        self.options = options
        self.inner = inner or Dense({"type": "f16"})
        self.bases = {}

    def begin(self, shape, page_tokens):
        layers, heads, _, head_dim = shape
        self.grouped = min(self.options["layers"], layers)
        widest = head_dim if self.grouped == 1 else self.grouped * heads * head_dim
        rank = self.options["rank"]
        self.share = rank / widest if isinstance(rank, int) else rank
        fit = self.options["fit_tokens"] or max(256, 2 * round(self.share * widest))
        self.tokens_to_begin = math.ceil(fit / page_tokens) * page_tokens

    def groups(self, mask):
        """Lists of cells (layer, head) that share a basis."""
        cells = [tuple(cell) for cell in np.argwhere(mask)]
        if self.grouped == 1:
            return [[cell] for cell in cells]
        groups = []
        for cell in cells:  # groups are counted from the first layer there is; a missing layer begins the next one
            if groups and cell[0] - groups[-1][0][0] < self.grouped and cell[0] - groups[-1][-1][0] <= 1:
                groups[-1].append(cell)
            else:
                groups.append([cell])
        return groups

    def run(self, stored, side, mask, tokens):
        for cells in self.groups(mask):
            def rows(part):
                return np.concatenate([stored[cell][part] for cell in cells], axis=-1)
            if (side, cells[0]) not in self.bases:
                first = rows(slice(0, self.tokens_to_begin)).astype(np.float64)
                vectors = np.linalg.svd(first, full_matrices=False)[2]
                rank = max(1, math.floor(self.share * first.shape[-1] + 0.5))
                self.bases[side, cells[0]] = round_to(vectors[:rank], "f16")
            basis = self.bases[side, cells[0]]
            decoded = self.inner.decoded(rows(tokens) @ basis.T, side, tokens.start) @ basis
            for cell, part in zip(cells, np.split(decoded, len(cells), axis=-1)):
                stored[cell][tokens] = part


class MiniCache(Method):
    """Pairs of layers share directions (arXiv 2405.14366, equation 3), a token and head at a time; both lengths are
    kept, and the tokens at the widest angles stay as they were."""

    def __init__(self, options):
        self.options = options

    def run(self, stored, side, mask, tokens):
        start, layers = self.options["start"], len(stored)
        first = start if isinstance(start, int) else int(start * layers)
        for layer in range(first, layers - 1, 2):
            for head in np.flatnonzero(mask[layer] & mask[layer + 1]):
                pair = stored[[layer, layer + 1], head, tokens]
                stored[[layer, layer + 1], head, tokens] = self.merged(pair[0], pair[1])

    def merged(self, lower, upper):
        """lower, upper: [tokens, head_dim]. Returns both as they are read back, [2, tokens, head_dim]."""
        t, pair = self.options["t"], np.stack([lower, upper]).astype(np.float64)
        lengths = np.linalg.norm(pair, axis=-1, keepdims=True)
        units = pair / np.maximum(lengths, 1e-30)
        angle = np.arccos(np.clip((units[0] * units[1]).sum(-1, keepdims=True), -1, 1))
        sine = np.sin(angle)
        flat = sine < 1e-6
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = [np.where(flat, 1 - t, np.sin((1 - t) * angle) / sine), np.where(flat, t, np.sin(t * angle) / sine)]
        direction = weights[0] * units[0] + weights[1] * units[1]
        direction = round_to(direction / np.linalg.norm(direction, axis=-1, keepdims=True), "f16")
        read = round_to(lengths, "f16") * direction
        farthest = np.argsort(-angle[:, 0], kind="stable")[:math.ceil(self.options["retain"] * len(lower))]
        read[:, farthest] = pair[:, farthest]
        return read.astype(np.float32)
