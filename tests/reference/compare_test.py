"""The reference's comparison of its results with a report."""
import contextlib
import io
import unittest

import support  # noqa: F401

import numpy as np

from reference_compare import agrees, block_sums, compare_rows, paired_interval
from reference_llama import InputError


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
