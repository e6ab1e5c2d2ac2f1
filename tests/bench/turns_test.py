"""Runs the program turns as scripts/bench --peers does: every operation that needs no model, and its errors."""

import os
import subprocess
import sys
import unittest

PROGRAM = sys.argv.pop(1)
# operation, settings, what it says of a turn, what it found
OPERATIONS = [
    ("encode", {"bits": 4, "threads": 2}, {"bytes": 1024 * (64 * 64 * 4 + 64 * 64 // 2 + 64 * 4)}, set()),
    ("read_back", {"bits": 8, "threads": 1}, {"bytes": 1024 * (64 * 64 * 4 + 64 * 64 + 64 * 4)}, set()),
    ("all_pairs", {"pages": 80, "threads": 2}, {"pairs": 6400, "flops": 6400 * 1024, "words": 3200 * 16}, set()),
    ("all_pairs", {"pages": 80, "threads": 2, "metric": "hamming"}, {"pairs": 6400, "flops": 6400 * 1024, "words": 3200 * 16}, set()),
    ("all_pairs", {"pages": 80, "threads": 1, "metric": "jaccard"}, {"pairs": 6400, "flops": 6400 * 1024, "words": 3200 * 16}, set()),
    ("cover", {"pages": 80, "threads": 1}, {"pairs": 6400, "flops": 6400 * 1024}, set()),
    ("kmeans", {"pages": 80, "k": 4, "iterations": 2, "threads": 1}, {"pairs": 6400, "flops": 6400 * 1024}, {"inertia"}),
    ("svd", {"rows": 80, "rank": 4, "threads": 1}, {}, {"energy"}),
    ("page_svds", {"pages": 2, "threads": 2}, {"pages": 2}, set()),
    ("read", {"bytes": 1 << 20, "threads": 2}, {"bytes": 1 << 20}, set()),
    ("copy", {"bytes": 1 << 20, "threads": 2}, {"bytes": 2 << 20}, set()),
    ("product", {"type": "f32", "threads": 2}, {"flops": 2 * 2 * 1024**3}, set()),
]


def numbers(fields):
    return {name: float(value) for name, value in (field.split("=") for field in fields)}


class Turns(unittest.TestCase):
    def ask(self, *lines):
        told = "".join("\t".join(map(str, line)) + "\n" for line in lines)
        result = subprocess.run([PROGRAM], input=told, capture_output=True, text=True, check=True, timeout=300,
                                env={**os.environ, "OMP_WAIT_POLICY": "passive"})
        answers = [line.split("\t") for line in result.stdout.splitlines()]
        self.assertEqual(len(answers), len(lines), result.stderr)
        return answers

    def test_operations(self):
        for operation, settings, facts, found in OPERATIONS:
            with self.subTest(operation):
                asked = [f"{name}={value}" for name, value in settings.items()]
                ready, done, dropped, gone = self.ask(("prepare", "x", operation, *asked), ("turn", "x"), ("drop", "x"), ("turn", "x"))
                self.assertEqual((ready[0], numbers(ready[1:])), ("ready", facts))
                self.assertEqual((done[0], set(numbers(done[1:]))), ("done", found | {"seconds"}))
                self.assertGreater(numbers(done[1:])["seconds"], 0)
                self.assertEqual((dropped, gone[0]), (["dropped"], "error"))

    def test_two_take_turns(self):
        answers = self.ask(("prepare", "a", "popcount"), ("prepare", "b", "copy", "bytes=4096", "threads=1"), ("turn", "a"),
                           ("turn", "b"), ("turn", "a"))
        self.assertEqual([answer[0] for answer in answers], ["ready", "ready", "done", "done", "done"])

    def test_errors_are_answers(self):
        for line, said in ((("dance", "x"), "expected prepare"), (("prepare", "x", "dance"), '"dance" is not known'),
                           (("prepare", "x", "copy", "threads=1"), "setting bytes: expected, not given"),
                           (("prepare", "x", "copy", "threads=one", "bytes=1"), 'threads: expected a number, found "one"'),
                           (("prepare", "x", "copy", "threads"), "expected NAME=VALUE"),
                           (("prepare", "x", "prefill", "tokens=1", "weights=bf16", "threads=1", "model=/nowhere"), "/nowhere")):
            [answer] = self.ask(line)
            self.assertEqual(answer[0], "error", line)
            self.assertIn(said, answer[1])


if __name__ == "__main__":
    unittest.main()
