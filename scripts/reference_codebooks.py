"""Formats with codebooks of scripts/reference_quant.py: nuq (KVQuant), turboquant, pq; from their papers, in NumPy.

What two right implementations must agree on: which numbers the levels stand for, their weights, that the levels are of
least squared error, what is f16, and that a number takes the nearest level. How least squares is found is free: here
by Lloyd's iterations over sorted numbers from two starts, in kvanalyze by dynamic programming over bins.
"""

import functools
import math
from statistics import NormalDist

import numpy as np

from reference_cache import SIDES, round_to
from reference_llama import InputError
from reference_methods import AXES, Method, axes_of, outlier_mask

ITERATIONS = 20000  # of Lloyd's in one dimension; many levels converge slowly


def nearest(levels, numbers):
    """Index of the nearest level; levels are ascending. Of two equally near ones the lower."""
    return np.searchsorted((levels[:-1] + levels[1:]) / 2, numbers, side="left")


def lloyd(levels, cell_means):
    """Levels that are the means of the numbers nearest to them. cell_means(borders): NaN where there are none."""
    for _ in range(ITERATIONS):
        means = cell_means((levels[:-1] + levels[1:]) / 2)
        means = np.where(np.isnan(means), levels, means)
        change = np.abs(means - levels).max()
        levels = means
        if change < 1e-9:
            break
    return levels


def weighted_levels(numbers, weights, count):
    """`count` levels, ascending, of least sum of weight * (number - nearest level)^2: k-means in one dimension."""
    if not weights.sum() > 0:
        return (2 * np.arange(count) + 1) / count - 1
    order = np.argsort(numbers)
    numbers, weights = numbers[order].astype(np.float64), weights[order].astype(np.float64)
    sums = [np.concatenate([[0.0], np.cumsum(weights * numbers ** power)]) for power in range(3)]

    def cells(borders):
        """Weight, sum and sum of squares of the numbers between borders."""
        cuts = np.concatenate([[0], np.searchsorted(numbers, borders, side="right"), [len(numbers)]])
        return [np.diff(of[cuts]) for of in sums]

    def means(borders):
        weight, total, _ = cells(borders)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(weight > 0, total / weight, np.nan)

    def cost(levels):
        weight, total, squares = cells((levels[:-1] + levels[1:]) / 2)
        return (squares - 2 * levels * total + levels ** 2 * weight).sum()

    middles = (np.arange(count) + 0.5) / count
    even = numbers[0] + (numbers[-1] - numbers[0]) * middles
    equally_filled = numbers[np.minimum(np.searchsorted(sums[0][1:], middles * sums[0][-1]), len(numbers) - 1)]
    return min((lloyd(np.sort(start), means) for start in (even, equally_filled)), key=cost)


@functools.cache
def normal_levels(bits):
    """Levels of least mean squared error for a standard normal number (Max 1960, Lloyd 1982)."""
    normal, count = NormalDist(), 2 ** bits

    def means(borders):
        below = np.array([0.0] + [normal.cdf(x) for x in borders] + [1.0])
        density = np.array([0.0] + [normal.pdf(x) for x in borders] + [0.0])
        return -np.diff(density) / np.diff(below)

    levels = lloyd(np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)]), means)
    return (levels - levels[::-1]) / 2


def uniform_numbers(seed):
    """SplitMix64 (Steele, Lea and Flood 2014), its upper 53 bits as numbers in [0, 1)."""
    mask, state = 2 ** 64 - 1, seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield ((z ^ (z >> 31)) >> 11) / 2 ** 53


@functools.cache
def random_rotation(width, seed=0):
    """Orthogonal [width, width], uniformly at random: normal numbers (Box and Muller), rows made orthonormal in order.

    The paper asks for any draw. This is kvanalyze's of the same seed, so that both make the same roundings and their
    errors can be compared number by number; another draw has errors of its own.
    """
    uniform = uniform_numbers(seed)
    normal = [math.sqrt(-2 * math.log(1 - next(uniform))) * math.cos(2 * math.pi * next(uniform))
              for _ in range(width * width)]
    q, r = np.linalg.qr(np.reshape(normal, (width, width)).T)
    return (q * np.sign(np.diag(r))).T.astype(np.float32)


def scaled(x, axes, outliers):
    """Where numbers lie in their vector's range, in [-1, 1] but for rounding, a vector being a token or a channel of a
    page side: (places, scale, offset, kept). kept: outliers, which leave the range. Scale and offset are f16."""
    axis = AXES[axes]
    kept = np.zeros(x.shape, dtype=bool)
    if outliers:
        kept = outlier_mask(x, outliers, axes, x.shape[axis], kept)
    least = np.where(kept, np.inf, x).min(axis=axis, keepdims=True).astype(np.float64)
    most = np.where(kept, -np.inf, x).max(axis=axis, keepdims=True).astype(np.float64)
    empty = least > most
    least, most = np.where(empty, 0.0, least), np.where(empty, 0.0, most)
    scale, offset = round_to((most - least) / 2, "f16"), round_to((most + least) / 2, "f16")
    places = np.where(scale > 0, (x - offset) / np.where(scale > 0, scale, 1), 0)
    return places.astype(np.float32), scale, offset, kept


class Learnt(Method):
    """A codebook for each layer and side, made once of a calibration text: learnt[side][layer]."""
    learns = True

    def __init__(self, options):
        self.options = options

    def learn(self, sample, masks):
        return {side: {layer: self.codebook(sample.pages[side][layer][masks[side][layer]],
                                            sample.mass[layer][masks[side][layer]], side)
                       for layer in np.flatnonzero(masks[side].any(axis=1))} for side in SIDES}

    def run(self, stored, side, mask, tokens):
        if self.learnt is None:
            raise InputError(f"{type(self).__name__.lower()}: expected a calibration text, found none")
        for layer in np.flatnonzero(mask.any(axis=1)):
            rows = stored[layer][mask[layer], tokens]
            stored[layer][mask[layer], tokens] = self.coded(rows, self.learnt[side][layer], side)

    def codebook(self, pages, mass, side):
        """pages [heads, pages, tokens, head_dim], mass [heads, pages, tokens]."""
        raise NotImplementedError

    def coded(self, rows, codebook, side):
        raise NotImplementedError


class Nuq(Learnt):
    """KVQuant (arXiv 2401.18079, section 3.3): vectors brought to [-1, 1] without their outliers, levels there of a layer
    by weighted k-means. The paper weighs by Fisher information, here by the attention that the token received."""

    def codebook(self, pages, mass, side):
        places, scale, _, kept = scaled(pages, axes_of(self.options["axes"], side), self.options["outliers"])
        of_use = ~kept & (scale > 0)
        weights = np.broadcast_to(mass[..., None], places.shape)
        levels = weighted_levels(np.clip(places[of_use], -1, 1), weights[of_use], 2 ** self.options["bits"])
        return round_to(levels, "f16")

    def coded(self, rows, codebook, side):
        places, scale, offset, kept = scaled(rows, axes_of(self.options["axes"], side), self.options["outliers"])
        return np.where(kept, round_to(rows, "f16"), offset + scale * codebook[nearest(codebook, places)])


class TurboQuant(Method):
    """TurboQuant (arXiv 2504.19874, algorithm 1): a token turned at random, its direction's numbers by the levels of
    the normal distribution. Without the second stage (QJL); the decoded token gets its length back."""

    def __init__(self, options):
        self.levels = round_to(normal_levels(options["bits"]), "f16")

    def decoded(self, rows, side, start):
        rotation = round_to(random_rotation(rows.shape[-1]), "f16")
        turned = rows @ rotation.T
        length = np.linalg.norm(turned.astype(np.float64), axis=-1, keepdims=True)
        deviation = length / math.sqrt(rows.shape[-1])
        numbers = self.levels[nearest(self.levels, turned / np.where(deviation > 0, deviation, 1))]
        scale = length / np.linalg.norm(numbers.astype(np.float64), axis=-1, keepdims=True)
        return (round_to(scale, "f16") * numbers) @ rotation


class Pq(Learnt):
    """Product quantization (Jegou, Douze and Schmid 2011; of a KV cache: PQCache, arXiv 2407.12820): a token in m parts,
    each the nearest of 2^bits f16 centroids of a layer and side, by k-means of the calibration text's tokens.

    k-means ends in a local optimum that depends on where it starts: that cannot agree, the error of the whole can.
    """
    iterations, most_tokens = 20, 64 * 256

    def codebook(self, pages, mass, side):
        # Pages follow each other, with their heads inside; evenly taken where there are too many tokens.
        tokens = pages.swapaxes(0, 1).reshape(-1, pages.shape[-1])
        taken = min(len(tokens), self.most_tokens)
        tokens = tokens[np.arange(taken) * len(tokens) // taken]
        random = np.random.default_rng(0)
        parts = np.split(tokens, self.options["m"], axis=-1)
        return [round_to(self.centroids(part, 2 ** self.options["bits"], random), "f16") for part in parts]

    def centroids(self, points, count, random):
        if len(points) < count:
            raise InputError(f"pq: expected a calibration text of at least {count} tokens, found {len(points)}")
        centroids = points[random.choice(len(points), count, replace=False)].astype(np.float64)
        for _ in range(self.iterations):
            of = self.nearest(points, centroids)
            counts = np.bincount(of, minlength=count)
            sums = np.stack([np.bincount(of, weights=column, minlength=count) for column in points.T], axis=-1)
            full = counts > 0
            centroids[full] = sums[full] / counts[full, None]
            # An empty one takes half of the fullest, as FAISS does.
            for empty in np.flatnonzero(~full):
                fullest = counts.argmax()
                centroids[empty] = centroids[fullest] * (1 + 1 / 1024)
                centroids[fullest] *= 1 - 1 / 1024
                counts[empty] = counts[fullest] = counts[fullest] // 2
        return centroids

    @staticmethod
    def nearest(points, centroids):
        centroids = centroids.astype(np.float32)
        return ((centroids ** 2).sum(axis=-1) / 2 - points @ centroids.T).argmin(axis=-1)

    def coded(self, rows, codebook, side):
        parts = np.split(rows.reshape(-1, rows.shape[-1]), len(codebook), axis=-1)
        read = [centroids[self.nearest(part, centroids)] for part, centroids in zip(parts, codebook)]
        return np.concatenate(read, axis=-1).reshape(rows.shape)
