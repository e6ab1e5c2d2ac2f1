"""The reference's codebooks by hand, and what methods learn from."""
import itertools
import json
import math
import unittest
import unittest.mock

from support import MODELS, page

import numpy as np
import xxhash
from safetensors.numpy import load_file

import reference_calibration
import reference_codebooks
import reference_quant
from reference_cache import Cache
from reference_codebooks import Nuq, Pq, TurboQuant, nearest, normal_levels, random_rotation, uniform_numbers, weighted_levels
from reference_llama import InputError, Llama
from reference_recipe import parse_recipe


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


if __name__ == "__main__":
    unittest.main()
