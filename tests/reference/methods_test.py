"""The reference's rounding, quantizers and methods without a codebook, by hand."""
import unittest

from support import page

import numpy as np

from reference_cache import round_to
from reference_methods import (QUANT, Gear, LowRank, MiniCache, Quant, hadamard, norm_corrected, outlier_mask,
                               quantize)


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


if __name__ == "__main__":
    unittest.main()
