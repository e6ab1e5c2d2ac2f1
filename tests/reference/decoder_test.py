"""The reference's decoder against transformers' golden files, its cache's sealing, recipes and the protocol of a run."""
import json
import math
import unittest

from support import MODELS

import numpy as np
from safetensors.numpy import load_file

import reference_quant
from reference_cache import Cache
from reference_llama import InputError, Llama
from reference_recipe import parse_recipe


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


if __name__ == "__main__":
    unittest.main()
