"""Tests of the NumPy reference (scripts/reference_*.py): quantizers by hand, the decoder against transformers' golden
files, the cache's sealing, recipes, and the comparison with a report."""

import contextlib
import io
import json
import math
import pathlib
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import numpy as np
    import tokenizers  # noqa: F401
    from safetensors.numpy import load_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import reference_quant
from reference_cache import Cache, round_to
from reference_compare import agrees, block_sums, compare_rows, paired_interval
from reference_llama import Llama, InputError
from reference_methods import LowRank, MiniCache, Quant, hadamard, norm_corrected, outlier_mask, quantize
from reference_recipe import QUANT, parse_recipe

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


class Recipes(unittest.TestCase):
    def test_spellings(self):
        for one, other in (("Baseline", "dense(F16)"), ("quant(4)", "QUANT( bits = 4 ) @seal"), ("zeroquant", "quant(8)"),
                           ("minicache(start=0.5,t=0.6)", "minicache(merge_start_layer=50%)"),
                           ("dense(fp8)", "dense(type=e4m3) # comment"), ("rest: quant(3)", "quant(3)")):
            self.assertTrue(parse_recipe(one).same_as(parse_recipe(other)), one)
        self.assertFalse(parse_recipe("quant(4)").same_as(parse_recipe("quant(4,rotate=true)")))
        self.assertFalse(parse_recipe("quant(4)").same_as(parse_recipe("keys(plain); quant(4)")))
        for wrong in ("pq(8)", "quant(colour=3)", "quant(4)|dense(f16)", "quant(4)@every=2", "keys(plain)", "lines(1):quant",
                      "layers(x):quant", "dense(f8)"):
            with self.assertRaises(InputError, msg=wrong):
                parse_recipe(wrong)

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
