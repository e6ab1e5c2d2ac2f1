"""Tests of the NumPy reference (scripts/reference_*.py): quantizers and codebooks by hand, the decoder against
transformers' golden files, the cache's sealing, recipes, what methods learn from, and the comparison with a report."""

import contextlib
import io
import itertools
import json
import math
import pathlib
import sys
import unittest
import unittest.mock

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import numpy as np
    import tokenizers  # noqa: F401
    import xxhash  # noqa: F401
    from safetensors.numpy import load_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import reference_calibration
import reference_codebooks
import reference_quant
from reference_cache import Cache, round_to
from reference_codebooks import Nuq, Pq, TurboQuant, nearest, normal_levels, random_rotation, uniform_numbers, weighted_levels
from reference_compare import agrees, block_sums, compare_rows, paired_interval
from reference_llama import Llama, InputError
from reference_methods import (QUANT, Gear, LowRank, MiniCache, Quant, hadamard, norm_corrected, outlier_mask,
                               quantize)
from reference_recipe import parse_recipe

MODELS = ROOT / "tests" / "fixtures" / "models"


def page(*rows):
    return np.array(rows, dtype=np.float32)


class Rounding(unittest.TestCase):
    def test_types(self):
        def rounded(dtype, *values):
            return round_to(page(values), dtype)[0].tolist()
        self.assertEqual(rounded("f16", 100.05, 1 / 3), [100.0625, 0.333251953125])
        self.assertEqual(rounded("bf16", 1 + 2 ** -8, 1 + 3 * 2 ** -8, -3.0), [1.0, 1.015625, -3.0])
        # e4m3: spacing 2^-5 around 0.3, largest 448, subnormals in steps of 2^-9
        self.assertEqual(rounded("fp8_e4m3", 0.3, 500.0, -500.0, 0.001, 0.0), [0.3125, 448, -448, 2.0 ** -9, 0])
        self.assertEqual(rounded("fp8_e5m2", 0.3, 3.4, 1e6), [0.3125, 3.5, 57344])


class Quantizers(unittest.TestCase):
    def quantized(self, x, *options, **named):
        return quantize(page(*x), *options, **named).tolist()

    def test_token_axis(self):
        # range 0 to 3 in 2 bits: scale 1, halves go to even codes
        x = [[0, 0.5, 1.5, 3], [-1, -0.4, 0.6, 2]]
        self.assertEqual(self.quantized(x, 2, "token", 4), [[0, 0, 2, 3], [-1, 0, 1, 2]])

    def test_scale_is_f16(self):
        self.assertEqual(self.quantized([[0, 1]], 2, "token", 2), [[0, 3 * 0.333251953125]])

    def test_zero_point_is_f16(self):
        # zero 1000.25 becomes 1000 (spacing 0.5, half to even): codes count from there
        self.assertEqual(self.quantized([[1000.25, 1003.25]], 2, "token", 2), [[1000, 1003]])

    def test_channel_axis(self):
        x = [[0, 100], [1.2, 200], [3, 400]]
        self.assertEqual(self.quantized(x, 2, "channel", 3), [[0, 100], [1, 200], [3, 400]])

    def test_last_group_is_what_is_left(self):
        x = [[0, 3, 10, 40, 7]]
        self.assertEqual(self.quantized(x, 2, "token", 2), x)
        self.assertEqual(self.quantized(np.transpose(x), 2, "channel", 2), np.transpose(x).tolist())

    def test_symmetric(self):
        self.assertEqual(self.quantized([[-7, 3.4, 6.9, 0.6]], 4, "token", 4, symmetric=True), [[-7, 3, 7, 1]])
        self.assertEqual(self.quantized([[-2, 0.9, 2, 1.1]], 2, "token", 4, symmetric=True), [[-2, 0, 2, 2]])

    def test_equal_numbers_have_scale_zero(self):
        self.assertEqual(self.quantized([[5, 5, 5]], 3, "token", 3), [[5, 5, 5]])
        self.assertEqual(self.quantized([[0, 0]], 3, "token", 2, symmetric=True), [[0, 0]])

    def test_kept_numbers_leave_the_range(self):
        x = [[0, 1.2, 100.05, 3]]
        kept = np.array([[False, False, True, False]])
        self.assertEqual(self.quantized(x, 2, "token", 4, kept=kept), [[0, 1, 100.0625, 3]])
        self.assertEqual(self.quantized([[4, 5]], 2, "token", 2, kept=np.ones((1, 2), dtype=bool)), [[4, 5]])

    def test_page_sides_are_apart(self):
        x = np.stack([page([0, 3]), page([0, 30])])
        self.assertEqual(quantize(x, 2, "token", 2).tolist(), x.tolist())

    def test_outliers(self):
        x = np.zeros((1, 10, 10), dtype=np.float32)
        x[0, 3, 4], x[0, 5, 6] = 9, -10
        none = np.zeros(x.shape, dtype=bool)
        self.assertEqual(np.argwhere(outlier_mask(x, 0.01, "token", 10, none)).tolist(), [[0, 5, 6]])
        self.assertEqual(np.argwhere(outlier_mask(x, 0.011, "channel", 10, none)).tolist(), [[0, 3, 4], [0, 5, 6]])
        # what is kept anyway is not counted again
        kept = none.copy()
        kept[0, 5, 6] = True
        self.assertEqual(np.argwhere(outlier_mask(x, 0.01, "token", 10, kept)).tolist(), [[0, 3, 4]])

    def test_hadamard(self):
        half = 2 ** -0.5
        np.testing.assert_allclose(hadamard(2), [[half, half], [half, -half]], rtol=1e-7)
        np.testing.assert_allclose(hadamard(64) @ hadamard(64), np.eye(64), atol=1e-6)
        with self.assertRaises(ValueError):
            hadamard(20)

    def test_norm_correction(self):
        self.assertEqual(norm_corrected(page([3, 4], [0, 0]), page([6, 8], [1, 1])).tolist(), [[6, 8], [0, 0]])


class Methods(unittest.TestCase):
    def decoded(self, rows, side="k", start=0, **options):
        return Quant(QUANT | options).decoded(np.array([rows], dtype=np.float32), side, start)[0].tolist()

    def test_sides_and_axes(self):
        x = [[0, 300], [1.2, 100], [3, 0]]
        self.assertEqual(self.decoded(x, "k", bits=2, axes="kivi"), [[0, 300], [1, 100], [3, 0]])
        self.assertEqual(self.decoded(x, "v", bits=2, axes="token")[2], [3, 0])
        self.assertEqual(self.decoded(x, "v", bits=2, axes="kivi"), self.decoded(x, "v", bits=2, axes="token"))
        self.assertEqual(self.decoded(x, "v", bits=2, v=16), page(*x).tolist())
        self.assertNotEqual(self.decoded(x, "v", bits=2, k=16), page(*x).tolist())

    def test_sinks_count_from_the_sequence(self):
        x = [[0.1, 0.2, 3], [0, 1.2, 3], [0, 1.2, 3]]
        kept = round_to(page(x[0]), "f16")[0].tolist()
        self.assertEqual(self.decoded(x, bits=2, sinks=65, start=64), [kept, [0, 1, 3], [0, 1, 3]])
        self.assertEqual(self.decoded(x, bits=2, sinks=64, start=64)[1], [0, 1, 3])
        # outliers are taken from the other tokens
        x = [[0.1, 0.2, 3], [0, 1.2, 3], [0, 99, 3]]
        self.assertEqual(self.decoded(x, bits=2, sinks=1, outliers=0.1), [kept, [0, 1, 3], [0, 99, 3]])

    def test_rotation_spreads_an_outlier(self):
        # [8, 0, 0, 0] turns into [4, 4, 4, 4]: one value, no loss; unturned, 0.9 beside 8 is lost at 2 bits
        self.assertEqual(self.decoded([[8, 0, 0, 0]], bits=2, rotate=True), [[8, 0, 0, 0]])
        x = [[8, 0.9, 0, 0]]
        turned, plain = (np.abs(np.array(self.decoded(x, bits=2, rotate=rotate)) - x).max() for rotate in (True, False))
        self.assertLess(turned, plain)

    def test_dense_channels(self):
        x = [[0, 0.5, 1000], [3, 3, -1000]]
        decoded = np.array(self.decoded(x, bits=2, axes="token", dense_channels=1))
        self.assertEqual(decoded[:, 2].tolist(), [1000, -1000])
        np.testing.assert_allclose(decoded[:, :2], [[0, 0.5], [3, 3]], atol=1e-3)

    def test_gear(self):
        def decoded(x, **options):
            return Gear({"bits": 2, "rank": 1, "outliers": 0, "axes": "token", "group": "page"} | options).decoded(
                x, "k", 0)
        # rows of one shape lose rows of one shape: [0, 0.9, 3] is read as [0, 1, 3], so rank 1 gives it back
        x = np.outer([1, 2, 4], [0, 0.9, 3]).astype(np.float32)[None]
        self.assertGreater(np.abs(Quant(QUANT | {"bits": 2}).decoded(x, "k", 0) - x).max(), 0.3)
        np.testing.assert_allclose(decoded(x), x, atol=2e-3)
        # of what is lost, all but the largest singular values stay lost
        x = np.random.default_rng(3).normal(size=(2, 8, 6)).astype(np.float32)
        lost = x - Quant(QUANT | {"bits": 2, "axes": "kivi", "outliers": 0.1}).decoded(x, "k", 0)
        spectrum = np.linalg.svd(lost, compute_uv=False)
        left = x - decoded(x, rank=2, outliers=0.1, axes="kivi")
        np.testing.assert_allclose((left ** 2).sum(axis=(1, 2)), (spectrum[:, 2:] ** 2).sum(axis=1), rtol=1e-2)

    def low_rank(self, **options):
        method = LowRank({"rank": 0.25, "layers": 1, "fit_tokens": 2} | options)
        method.begin((2, 1, 4, 4), 2)
        return method

    def test_low_rank(self):
        rows = np.outer([1, 2, 3, 4], [0.6, 0.8, 0, 0]).astype(np.float32)
        stored = np.stack([rows, 2 * rows[:, ::-1]])[:, None]
        expected, everything = stored.copy(), np.ones((2, 1), dtype=bool)
        method = self.low_rank()
        method.run(stored, "k", everything, slice(0, 4))
        np.testing.assert_allclose(stored, expected, rtol=2e-3)
        # what is outside the first tokens' subspace is lost, on the side that was fitted
        other = np.zeros((2, 1, 4, 4), dtype=np.float32)
        other[:, 0, 0, 1:3] = [-6, 8]
        method.run(other, "k", everything, slice(0, 1))
        np.testing.assert_allclose(other[:, 0, 0], [[-2.88, -3.84, 0, 0], [0, 0, 5.12, 3.84]], atol=0.01)

    def test_low_rank_of_two_layers(self):
        rows = np.outer([1, 2, 3, 4], [0.6, 0.8, 0, 0]).astype(np.float32)
        stored = np.stack([rows, 2 * rows[:, ::-1]])[:, None]
        expected, everything = stored.copy(), np.ones((2, 1), dtype=bool)
        method = self.low_rank(layers=2, rank=1)  # one direction suffices where the layers' coefficients are equal
        method.run(stored, "k", everything, slice(0, 4))
        np.testing.assert_allclose(stored, expected, rtol=2e-3)
        self.assertEqual([basis.shape for basis in method.bases.values()], [(1, 8)])

    def test_low_rank_holds_codes(self):
        method = LowRank({"rank": 1, "layers": 1, "fit_tokens": 3}, Quant(QUANT | {"bits": 2, "axes": "channel"}))
        method.begin((1, 1, 3, 2), 3)
        stored = np.outer([0, 1.2, 3], [0.6, 0.8]).astype(np.float32)[None, None]
        method.run(stored, "k", np.ones((1, 1), dtype=bool), slice(0, 3))
        np.testing.assert_allclose(stored[0, 0], np.outer([0, 1, 3], [0.6, 0.8]), atol=3e-3)

    def test_low_rank_begins(self):
        for options, tokens in (({"fit_tokens": None}, 256), ({"fit_tokens": 99}, 100)):
            self.assertEqual(self.low_rank(**options).tokens_to_begin, tokens)
        method = LowRank({"rank": 192, "layers": 1, "fit_tokens": None})
        method.begin((2, 1, 4, 256), 64)
        self.assertEqual(method.tokens_to_begin, 384)
        mask = np.ones((6, 1), dtype=bool)
        mask[[0, 3]] = False
        layers = [[cell[0] for cell in group] for group in self.low_rank(layers=2).groups(mask)]
        self.assertEqual(layers, [[1, 2], [4, 5]])

    def test_minicache(self):
        method = MiniCache({"start": 0, "t": 0.5, "retain": 0})
        half = float(np.float16(2 ** -0.5))
        read = method.merged(page([2, 0]), page([0, 1]))
        self.assertEqual(read.tolist(), [[[2 * half, 2 * half]], [[half, half]]])
        # a quarter of a right angle from the lower layer
        read = MiniCache({"start": 0, "t": 0.25, "retain": 0}).merged(page([2, 0]), page([0, 1]))
        np.testing.assert_allclose(read[:, 0], [[2 * 0.92388, 2 * 0.38268], [0.92388, 0.38268]], rtol=1e-3)
        # t = 1 is the upper layer's direction; the widest angle of two tokens stays as it was
        method = MiniCache({"start": 0, "t": 1.0, "retain": 0.5})
        read = method.merged(page([3, 4], [1, 0]), page([6, 8], [0, 1]))
        np.testing.assert_allclose(read, [[[3, 4], [1, 0]], [[6, 8], [0, 1]]], rtol=1e-3)
        stored = np.ones((3, 1, 2, 2), dtype=np.float32)
        stored[2] = 7
        MiniCache({"start": 0.5, "t": 0.6, "retain": 0}).run(stored, "k", np.ones((3, 1), dtype=bool), slice(0, 2))
        np.testing.assert_allclose(stored[1:], [[[[1, 1]] * 2], [[[7, 7]] * 2]], rtol=1e-3)


class Codebooks(unittest.TestCase):
    def test_nearest(self):
        self.assertEqual(nearest(np.array([-1.0, 0.0, 2.0]), page([-9, -0.5, -0.4, 1, 1.1])).tolist(), [[0, 0, 1, 1, 2]])

    def test_weighted_levels_are_the_best(self):
        random = np.random.default_rng(5)
        numbers, weights = random.uniform(-1, 1, 12), random.gamma(1, 1, 12)
        def cost(cuts):
            parts = zip((0, *cuts), (*cuts, 12))
            return sum((np.average((x - np.average(x, weights=w)) ** 2, weights=w) * w.sum())
                       for x, w in ((np.sort(numbers)[a:b], weights[np.argsort(numbers)][a:b]) for a, b in parts))
        levels = weighted_levels(numbers, weights, 4)
        least = min(cost(cuts) for cuts in itertools.combinations(range(1, 12), 3))
        self.assertAlmostEqual((weights * (numbers - levels[nearest(levels, numbers)]) ** 2).sum(), least)

    def test_weights_move_levels(self):
        np.testing.assert_allclose(weighted_levels(page([0, 1, 10])[0], np.array([1, 3, 1]), 2), [0.75, 10])
        # what weighs nothing counts for nothing
        np.testing.assert_allclose(weighted_levels(page([0, 1, 10])[0], np.array([1, 1, 0]), 2), [0, 1])
        self.assertEqual(weighted_levels(page([3])[0], np.zeros(1), 2).tolist(), [-0.5, 0.5])

    def test_normal_levels(self):
        # Max's table (IRE Transactions on Information Theory 6, 1960)
        np.testing.assert_allclose(normal_levels(1), [-0.7980, 0.7980], atol=2e-4)
        np.testing.assert_allclose(normal_levels(2)[2:], [0.4528, 1.510], atol=5e-4)
        np.testing.assert_allclose(normal_levels(3)[4:], [0.2451, 0.7560, 1.344, 2.152], atol=5e-4)
        np.testing.assert_allclose(normal_levels(4)[[8, 15]], [0.1284, 2.733], atol=5e-4)

    def test_random_rotation(self):
        # SplitMix64's published first number of seed 1234567
        self.assertEqual(next(uniform_numbers(1234567)), (6457827717110365317 >> 11) / 2 ** 53)
        turned = random_rotation(64)
        np.testing.assert_allclose(turned @ turned.T, np.eye(64), atol=1e-6)
        drawn = uniform_numbers(0)
        normal = np.array([math.sqrt(-2 * math.log(1 - next(drawn))) * math.cos(2 * math.pi * next(drawn))
                           for _ in range(64)])
        np.testing.assert_allclose(turned[0], normal / np.linalg.norm(normal), atol=1e-6)
        self.assertGreater(np.abs(random_rotation(64, seed=1) - turned).max(), 0.1)

    def test_nuq(self):
        levels = np.array([-1, 0, 0.5, 1], dtype=np.float32)
        # channel 0 lies at [-1, -0.5, 1] of its range, channel 1 at [-1, 0.2, 1]; half-way the lower level
        x = page([0, 10], [1, 28], [4, 40])[None]
        method = Nuq({"bits": 2, "outliers": 0, "axes": "kivi"})
        self.assertEqual(method.coded(x, levels, "k")[0].tolist(), [[0, 10], [0, 25], [4, 40]])
        self.assertEqual(method.coded(x, levels, "v")[0].tolist(), x[0].tolist())
        # an outlier leaves the range: [0, 4], of which 1 lies at -0.5 and 3 at 0.5
        method = Nuq({"bits": 2, "outliers": 0.2, "axes": "token"})
        self.assertEqual(method.coded(page([0, 1, 100.05, 3, 4])[None], levels, "k")[0].tolist(), [[0, 0, 100.0625, 3, 4]])
        self.assertEqual(method.coded(page([5, 5, 5])[None], levels, "k")[0].tolist(), [[5, 5, 5]])

    def test_nuq_learns(self):
        # channels at [-1, -0.5, 0.5, 1] of their ranges, whatever those are
        pages = page([0, 10], [1, 15], [3, 25], [4, 30])[None, None]
        def learnt(mass, **options):
            return Nuq({"bits": 2, "outliers": 0, "axes": "channel"} | options).codebook(
                pages, np.array(mass, dtype=np.float64)[None, None], "k").tolist()
        self.assertEqual(learnt([1, 1, 1, 1]), [-1, -0.5, 0.5, 1])
        self.assertLessEqual({-1, -0.5, 0.5}, set(learnt([1, 1, 1, 0])))
        two = weighted_levels(np.array([-1, -0.5, 0.5, 1] * 2), np.array([3, 1, 1, 1] * 2), 2)
        np.testing.assert_allclose(two, [-0.875, 0.75])
        # without its two outliers (10 and 30, farthest by the root of the deviation) channel 1 has 2 numbers, its ends
        self.assertEqual(learnt([1, 1, 1, 1], outliers=0.25), [-1, -0.5, 0.5, 1])

    def test_turboquant(self):
        with unittest.mock.patch.object(reference_codebooks, "random_rotation", lambda width: np.eye(width, dtype=np.float32)):
            decoded = TurboQuant({"bits": 2}).decoded(page([2, 2, -2, 2], [3, 0.3, -0.3, -3], [0, 0, 0, 0]), "k", 0)
        # all of a size: exact. Else 1.5104 and 0.4528 times the length over theirs
        factor = math.sqrt((9 + 0.09) / (1.5104 ** 2 + 0.4528 ** 2))
        big, small = 1.5104 * factor, 0.4528 * factor
        np.testing.assert_allclose(decoded, [[2, 2, -2, 2], [big, small, -small, -big], [0, 0, 0, 0]], rtol=1e-3)
        # near the least error for normal numbers (Max: 0.1175, 0.03454, 0.009497), turned or not
        x = np.zeros((1, 300, 64), dtype=np.float32)
        x[0] = np.random.default_rng(1).normal(size=(300, 64)) * np.linspace(0.01, 3, 64)
        for bits, error in ((2, 0.1175), (3, 0.03454), (4, 0.009497)):
            decoded = TurboQuant({"bits": bits}).decoded(x, "k", 0)
            self.assertAlmostEqual(((x - decoded) ** 2).sum() / (x ** 2).sum() / error, 1, delta=0.1)
            np.testing.assert_allclose(np.linalg.norm(decoded, axis=-1), np.linalg.norm(x, axis=-1), rtol=2e-3)

    def test_pq(self):
        method = Pq({"m": 2, "bits": 1})
        codebook = [page([0, 0], [4, 4]), page([1, 0], [0, 1])]
        self.assertEqual(method.coded(page([1, 2, 9, 0], [3, 3, 0, 9])[None], codebook, "k")[0].tolist(),
                         [[0, 0, 1, 0], [4, 4, 0, 1]])
        # k-means of two clumps a part finds their means
        points = np.array([[0, 0, 5], [0, 2, 5], [9, 9, 7], [9, 7, 7]], dtype=np.float32)
        for seed in range(4):
            found = method.centroids(points, 2, np.random.default_rng(seed))
            self.assertEqual(sorted(found.tolist()), [[0, 1, 5], [9, 8, 7]])
        pages = np.random.default_rng(0).normal(size=(2, 1, 2, 4)).astype(np.float32)
        learnt = Pq({"m": 2, "bits": 2}).codebook(pages, None, "k")  # as many centroids as tokens
        read = Pq({"m": 2, "bits": 2}).coded(pages[:, 0], learnt, "k")
        np.testing.assert_allclose(read, pages[:, 0], rtol=1e-3)
        with self.assertRaises(InputError):
            Pq({"m": 2, "bits": 8}).codebook(pages, None, "k")


class Calibration(unittest.TestCase):
    def setUp(self):
        self.model = Llama(MODELS / "llama")
        self.tokens = json.loads((MODELS / "llama" / "golden.json").read_text())["tokens"]

    def test_sample(self):
        golden = load_file(MODELS / "llama" / "golden.safetensors")
        count = len(self.tokens) // 8 * 8
        sample = reference_calibration.Sample(self.model, self.tokens, len(self.tokens), 8, "rotated")
        for side in "kv":
            pages = sample.pages[side]
            joined = pages.reshape(*pages.shape[:2], count, -1)
            np.testing.assert_allclose(joined, golden[side][:, :, :count], atol=2e-2)
        # each query gives 1 in all, to itself and the tokens before it
        sample = reference_calibration.Sample(self.model, self.tokens[:20], 8, 4, "plain")
        self.assertEqual(sample.mass.shape[2:], (5, 4))
        np.testing.assert_allclose(sample.mass.sum(axis=3)[:, :, 0] + sample.mass.sum(axis=3)[:, :, 1], 8, rtol=1e-5)
        np.testing.assert_allclose(sample.mass.sum(axis=3)[:, :, 4], 4, rtol=1e-5)
        self.assertTrue((sample.mass[:, :, 1, 3] < 1).all() and (sample.mass[:, :, 0, 0] > 1).all())

    def test_built_in_text(self):
        text = reference_calibration.built_in_text()
        self.assertTrue(text.startswith("Please summarise") and text.endswith("\n\n"))
        self.assertGreater(text.count("\n\n"), 8)

    def test_recipes_learn(self):
        recipe = parse_recipe("layers(0)&side(k): nuq(2); rest: dense(f16)")
        samples = []
        def sample_of(basis):
            samples.append(basis)
            return reference_calibration.Sample(self.model, self.tokens, 16, 8, basis)
        recipe.learn(self.model.layers, self.model.kv_heads, sample_of)
        self.assertEqual(samples, ["rotated"])
        (codebooks,) = recipe.learnt.values()
        self.assertEqual((list(codebooks["k"]), list(codebooks["v"])), ([0], []))
        self.assertEqual(codebooks["k"][0].shape, (4,))
        protocol = {"context": 32, "chunk_tokens": 8, "page_size": 8, "windows": 1}
        row, = reference_quant.run(self.model, self.tokens * 2, [parse_recipe("nuq(3)")], protocol,
                                   calibration=self.tokens)
        self.assertGreater(row["kl_mean"], 1e-6)

    def test_without_a_text(self):
        cache = Cache(self.model, 16, 8, plan=parse_recipe("nuq").plan(self.model.layers, self.model.kv_heads))
        with self.assertRaises(InputError):
            self.model.step(self.tokens[:8], [cache])

    def test_the_report_tells_the_text(self):
        arguments = unittest.mock.Mock(calibration=None, model="")
        # as in a report on the text "\x01\x02" of a tokenizer of bytes
        report = {"ab": {"calibration": {"file": "", "token_hash": "xxh3:" + xxhash.xxh3_128_hexdigest(
            b"\1\0\0\0\2\0\0\0")}}}
        with unittest.mock.patch.object(reference_quant, "tokens_of", lambda model, text: [1, 2]):
            self.assertEqual(reference_quant.calibration_of(arguments, report), [1, 2])
            report["ab"]["calibration"]["token_hash"] = "xxh3:0"
            with self.assertRaises(InputError):
                reference_quant.calibration_of(arguments, report)


class Recipes(unittest.TestCase):
    def test_spellings(self):
        for one, other in (("Baseline", "dense(F16)"), ("quant(4)", "QUANT( bits = 4 ) @seal"), ("zeroquant", "quant(8)"),
                           ("minicache(start=0.5,t=0.6)", "minicache(merge_start_layer=50%)"),
                           ("dense(fp8)", "dense(type=e4m3) # comment"), ("rest: quant(3)", "quant(3)"),
                           ("nuq", "nuq(bits=3,outliers=1%,axes=kivi)"), ("turboquant", "TurboQuant(4)"), ("pq", "pq(16,8)"),
                           ("gear", "gear(bits=4,rank=2,outliers=0.02,axes=kivi,group=page)"),
                           ("keys(plain) ; lowrank(0.5) | quant(8)", "keys(plain);lowrank(rank=0.5)|zeroquant@seal")):
            self.assertTrue(parse_recipe(one).same_as(parse_recipe(other)), one)
        self.assertFalse(parse_recipe("quant(4)").same_as(parse_recipe("quant(4,rotate=true)")))
        self.assertFalse(parse_recipe("quant(4)").same_as(parse_recipe("keys(plain); quant(4)")))
        self.assertFalse(parse_recipe("lowrank").same_as(parse_recipe("lowrank|quant(8)")))
        for wrong in ("zstd", "quant(colour=3)", "quant(4)|dense(f16)", "lowrank|nuq", "lowrank|quant(4,window=9)",
                      "quant(4)@every=2", "keys(plain)", "lines(1):quant", "layers(x):quant", "dense(f8)"):
            with self.assertRaises(InputError, msg=wrong):
                parse_recipe(wrong)

    def test_fill(self):
        for recipe, fill in (("quant(4)", "f16"), ("dense(bf16)", "bf16"), ("dense(fp8)", "f16"),
                             ("layers(0): dense(f32); rest: dense(f16)", "f32"),
                             ("layers(0): dense(f32); rest: dense(fp8)", "f32")):
            self.assertEqual(parse_recipe(recipe).fill(), fill, recipe)

    def test_cells(self):
        recipe = parse_recipe("rest: quant(4); layers(0-1,-1)&side(k): dense(f16); heads(1)&layers(0)&side(v): quant(2)")
        plan = recipe.plan(4, 2)
        self.assertEqual(plan[0][1]["k"].tolist(), [[True] * 2, [True] * 2, [False] * 2, [True] * 2])
        self.assertFalse(plan[0][1]["v"].any())
        self.assertEqual(np.argwhere(plan[1][1]["v"]).tolist(), [[0, 1]])
        self.assertEqual(np.argwhere(plan[2][1]["k"]).tolist(), [[2, 0], [2, 1]])
        self.assertEqual(int(plan[2][1]["v"].sum()), 7)
        with self.assertRaises(InputError):
            parse_recipe("layers(0): quant(4); heads(0): quant(2)").plan(2, 2)


class Decoder(unittest.TestCase):
    def golden(self, name):
        folder = MODELS / name
        return Llama(folder), json.loads((folder / "golden.json").read_text())["tokens"], load_file(
            folder / "golden.safetensors")

    def test_transformers(self):
        for name in ("llama", "llama-tied-bias", "mistral", "qwen2", "llama-f16"):
            model, tokens, golden = self.golden(name)
            for basis in ("rotated", "plain", "page-relative"):
                with self.subTest(name=name, basis=basis):
                    cache = Cache(model, len(tokens), 8, "f32", basis)
                    hidden = np.concatenate([model.step(tokens[at:at + 7], [cache])[0]
                                             for at in range(0, len(tokens), 7)])
                    np.testing.assert_allclose(model.logits(hidden), golden["logits"], atol=1e-4)
                    np.testing.assert_allclose(cache.read_keys, golden["k"], atol=1e-5)
                    np.testing.assert_allclose(cache.stored["v"], golden["v"], atol=1e-5)

    def filled(self, recipe, tokens=20):
        model, ids, golden = self.golden("llama")
        recipe = parse_recipe(recipe)
        cache = Cache(model, 40, 8, recipe.fill(), recipe.key_basis, recipe.plan(model.layers, model.kv_heads))
        model.step(ids[:tokens], [cache])
        return cache, golden

    def test_only_full_pages_outside_the_window_change(self):
        dense, _ = self.filled("dense(f16)")
        for recipe, changed in (("quant(2)", 16), ("quant(2,window=5)", 8), ("quant(2,window=20)", 0)):
            cache, _ = self.filled(recipe)
            # layer 0 sees the same input whatever the cache holds
            differs = (cache.stored["v"][0] != dense.stored["v"][0]).any(axis=(0, 2))
            self.assertTrue(differs[:changed].all(), recipe)
            self.assertFalse(differs[changed:].any(), recipe)

    def test_plain_keys_are_quantized_before_the_rotation(self):
        def values(keys):
            return max(len(np.unique(keys[0, head, :8, channel])) for head in range(2) for channel in range(8))
        cache, golden = self.filled("keys(plain); quant(2,axes=channel)", 16)
        self.assertEqual(values(cache.stored["k"]), 4)
        self.assertGreater(values(cache.read_keys), 4)
        cache, _ = self.filled("keys(plain); quant(8,axes=channel)", 16)
        self.assertLess(np.abs(cache.read_keys[0, :, :16] - golden["k"][0, :, :16]).max(), 0.05)
        self.assertGreater(np.abs(cache.stored["k"][0, :, 8:16] - golden["k"][0, :, 8:16]).max(), 0.5)


class Protocol(unittest.TestCase):
    def test_steps_and_targets(self):
        self.assertEqual(list(reference_quant.steps_of(10, 4)), [(0, 4), (4, 5), (5, 9), (9, 10)])
        model = Llama(MODELS / "llama")
        tokens = json.loads((MODELS / "llama" / "golden.json").read_text())["tokens"]
        logits = load_file(MODELS / "llama" / "golden.safetensors")["logits"].astype(np.float64)
        protocol = {"context": 20, "chunk_tokens": 4, "page_size": 8, "windows": 2}
        row, = reference_quant.run(model, tokens, [parse_recipe("dense(f32)")], protocol)
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        expected = [-log_p[t, tokens[t + 1]] for t in range(9, 19)]  # tokens 10 to 19, the first window's second half
        np.testing.assert_allclose(row["per_token"]["nll"][:10], expected, atol=1e-4)
        self.assertEqual((row["tokens"], row["kl_max"] < 1e-9, row["top1_agreement"]), (20, True, 1.0))
        self.assertEqual(len(row["block_sums"]["kl"]), 2)
        self.assertAlmostEqual(math.exp(sum(row["block_sums"]["nll"]) / 20), row["perplexity"])

    def test_divergence(self):
        base, candidate = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])
        nll, nll_base, kl, same = reference_quant.Scorer(base, np.array([1])).scores_of(candidate)[:, 0]
        self.assertAlmostEqual(kl, 0.25 * math.log(2))
        self.assertAlmostEqual(nll, math.log(2))
        self.assertAlmostEqual(nll_base, math.log(4))
        self.assertEqual(same, 0)


class Comparison(unittest.TestCase):
    def setUp(self):
        random = np.random.default_rng(1)
        self.kl = random.gamma(2, 0.01, 256)
        self.nll = random.gamma(2, 1, 256)

    def row(self, kl, nll):
        return {"recipe": "quant(bits=4)", "kl_mean": float(kl.mean()),
                "block_sums": {"kl": block_sums(kl, 128), "nll": block_sums(nll, 128)}}

    def passed(self, kl, nll, **protocol):
        protocol = {"context": 256, "chunk_tokens": 64, "page_size": 64, "windows": 2, "tokens": 256,
                    "block_tokens": 64} | protocol
        report = {"kind": "ab", "ab": {"protocol": protocol | {"turns": 1, "weights": "f32"}, "rows": [self.row(kl, nll)],
                                       "blocks": {"tokens": [64] * 4}}}
        results = {"protocol": protocol | {"page_size": 64}, "rows": [self.row(self.kl, self.nll)]}
        with contextlib.redirect_stdout(io.StringIO()):
            return compare_rows(results, report, 1e-4, 0.2)

    def test_blocks(self):
        self.assertEqual(block_sums(np.ones(200), 100), [64, 36, 64, 36])
        self.assertEqual(paired_interval([3, 3], [64, 64]), (3 / 64, 3 / 64, 3 / 64))

    def test_equal_and_nearly_equal_pass(self):
        self.assertTrue(self.passed(self.kl, self.nll))
        noise = np.random.default_rng(2).normal(0, 1e-4, 256)
        self.assertTrue(self.passed(self.kl + noise, self.nll + noise))

    def test_what_differs_fails(self):
        self.assertFalse(self.passed(self.kl * 1.1, self.nll))
        self.assertFalse(self.passed(self.kl, self.nll + 0.01))
        # an interval so wide that it says nothing
        noise = np.random.default_rng(3).normal(0, 1, 256)
        self.assertFalse(self.passed(self.kl, self.nll + noise - noise.mean()))
        self.assertFalse(agrees((0.0, -1.0, 1.0), 1e-4, 0.1))

    def test_other_protocols_are_refused(self):
        for other in ({"page_size": 16}, {"tokens": 200}, {"windows": 1}):
            with self.assertRaises(InputError):
                self.passed(self.kl, self.nll, **other)
        with self.assertRaises(InputError):
            compare_rows({}, {"kind": "redundancy"}, 0, 0)


if __name__ == "__main__":
    unittest.main()
