"""Tests of scripts/bench --peers that need no peer: turns and what is made of them, and the model for llama.cpp."""

import io
import json
import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "scripts" / "peers")]
try:
    import gguf
    import numpy as np
    import safetensors  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import analysis_rows
import bench_growth
import bench_peers
import codec_rows
import decoder_rows
import fetch_gguf
import make_gguf
import turns
import worker
from fetch_common import FetchError, write_safetensors

HEADS, KV_HEADS, HEAD_DIM, HIDDEN, FFN, VOCAB, LAYERS = 4, 2, 8, 32, 24, 17, 2


def small_model(folder, dtype):
    """{name: f32 array} of a llama model written into `folder`."""
    random = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        rows = {"self_attn.q_proj": HEADS * HEAD_DIM, "self_attn.k_proj": KV_HEADS * HEAD_DIM,
                "self_attn.v_proj": KV_HEADS * HEAD_DIM, "self_attn.o_proj": HIDDEN, "mlp.gate_proj": FFN, "mlp.up_proj": FFN}
        shapes |= {f"model.layers.{layer}.{name}.weight": (count, HIDDEN) for name, count in rows.items()}
        shapes |= {f"model.layers.{layer}.mlp.down_proj.weight": (HIDDEN, FFN),
                   f"model.layers.{layer}.input_layernorm.weight": (HIDDEN,),
                   f"model.layers.{layer}.post_attention_layernorm.weight": (HIDDEN,)}
    values = {name: random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    if dtype == "bfloat16":  # f16 has more digits than bf16: keep the upper half of f32
        stored = {name: (value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for name, value in values.items()}
        values = {name: (bits.astype(np.uint32) << 16).view(np.float32) for name, bits in stored.items()}
    else:
        stored = {name: value.astype(dtype) for name, value in values.items()}
    write_safetensors(os.path.join(folder, "model.safetensors"), {name: (dtype, value) for name, value in stored.items()})
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FFN,
                   "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
                   "head_dim": HEAD_DIM, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                   "tie_word_embeddings": True}, file)
    return {name: value.astype(np.float32) for name, value in values.items()}


class MakeGguf(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.file = os.path.join(self.folder, "model.gguf")

    def read_back(self):
        """What fetch_gguf, which has its own tests, reads from the file."""
        reader = gguf.GGUFReader(self.file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        return {name: values for name, values in (fetch_gguf.convert_tensor(tensor, fields) for tensor in reader.tensors)}

    def test_f32_is_the_model_bit_for_bit(self):
        for dtype in ("float16", "float32", "bfloat16"):
            expected = small_model(self.folder, dtype)
            make_gguf.write_gguf(self.folder, self.file, "f32")
            found = self.read_back()
            self.assertEqual(found.keys(), expected.keys())
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name].astype(np.float32), values, err_msg=f"{dtype} {name}")

    def test_bf16_rounds_matrices_to_nearest_even_and_leaves_vectors(self):
        expected = small_model(self.folder, "float16")
        make_gguf.write_gguf(self.folder, self.file, "bf16")
        found = {tensor.name: tensor for tensor in gguf.GGUFReader(self.file).tensors}
        norm = found["output_norm.weight"]
        np.testing.assert_array_equal(norm.data, expected["model.norm.weight"])
        embedding = found["token_embd.weight"]
        self.assertEqual(embedding.tensor_type, gguf.GGMLQuantizationType.BF16)
        bits = expected["model.embed_tokens.weight"].view(np.uint32).astype(np.uint64)
        rounded = (((bits + 0x7fff + (bits >> 16 & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)
        np.testing.assert_array_equal(gguf.quants.dequantize(embedding.data, embedding.tensor_type), rounded)

    def test_other_models_are_refused(self):
        small_model(self.folder, "float16")
        config = os.path.join(self.folder, "config.json")
        with open(config, encoding="utf-8") as file:
            about = json.load(file)
        with open(config, "w", encoding="utf-8") as file:
            json.dump(about | {"model_type": "gpt2"}, file)
        with self.assertRaisesRegex(FetchError, "expected a llama model.*'gpt2'"):
            make_gguf.write_gguf(self.folder, self.file, "f32")
        self.assertFalse(os.path.exists(self.file))


class Fake:
    """An operation that says when it was run."""

    log = []

    def __init__(self, settings):
        self.name, self.facts, self.found = settings["name"], {"tokens": 2}, {"inertia": 7.0}

    def turn(self):
        self.log.append(self.name)
        return {"a": 0.5, "b": 1.0}[self.name]


class Worker(unittest.TestCase):
    def ask(self, *lines):
        answers = io.StringIO()
        worker.serve({"fake": Fake}, io.StringIO("".join(line + "\n" for line in lines)), answers)
        return answers.getvalue().splitlines()

    def test_answers_every_line_with_one(self):
        self.assertEqual(self.ask("prepare\tx\tfake\tname=a", "turn\tx", "drop\tx"),
                         ["ready\ttokens=2", "done\tseconds=0.500000000\tinertia=7.0", "dropped"])

    def test_errors_are_answers_and_it_goes_on(self):
        answers = self.ask("turn\tx", "prepare\tx\tfake", "dance\tx", "prepare\tx\tfake\tname=a")
        self.assertEqual([answer.split("\t")[0] for answer in answers], ["error", "error", "error", "ready"])


class Turns(unittest.TestCase):
    def rows(self, ours, peer, probe=None):
        readings = [{"ours": a, "peer": b, "probe": c} for a, b, c in zip(ours, peer, probe or [1.0] * len(ours))]
        row = turns.Row("work", "1/s", 2, lambda s, f: 1 / s["ours"], lambda s, f: 1 / s["peer"],
                        limit=lambda s, f: f["full"] / s["probe"], probe="probe", must=1.5)
        return turns.measured(row, readings, {"full": 4.0})

    def test_ratio_is_the_median_over_pairs_not_of_medians(self):
        row, steady = self.rows([1, 2, 4, 8, 1, 1, 1], [2, 4, 8, 16, 2, 6, 0.5])
        self.assertEqual(row["ratio"], 2.0)
        self.assertTrue(steady)
        self.assertEqual(sorted(row), ["must", "operation", "ours", "peer", "ratio", "share_of_limit", "spread", "threads", "unit"])

    def test_share_is_ours_over_the_limit_of_the_round(self):
        row, _ = self.rows([0.5] * 7, [1.0] * 7)
        self.assertEqual(row["share_of_limit"], 0.5)

    def test_spread_is_the_middle_half_over_the_median(self):
        row, _ = self.rows([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0])
        self.assertAlmostEqual(row["spread"], 2.0 / 3.0)

    def test_a_probe_that_moves_takes_the_verdict_away(self):
        self.assertTrue(self.rows([1.0] * 7, [1.0] * 7, [1, 1, 1, 9, 1.1, 1.1, 1.1])[1])
        self.assertFalse(self.rows([1.0] * 7, [1.0] * 7, [1, 1, 1, 1, 1.2, 1.2, 1.2])[1])
        self.assertFalse(self.rows([1.0] * 7, [1.0] * 7, [1, 1, 1, 1, 0.8, 0.8, 0.8])[1])

    def test_a_row_that_noise_swallowed_is_none(self):
        self.assertIsNone(self.rows([1.0] * 7, [float("inf")] * 4 + [1.0] * 3)[0])

    def test_programs_take_turns(self):
        Fake.log.clear()
        prepared = {}
        sessions = {name: turns.Session("fake", "fake", {"name": name}) for name in ("a", "b")}

        def ask(name, session, command):
            line = "\t".join([command, name] + (session.fields() if command == "prepare" else []))
            answers = io.StringIO()
            answers.write(worker.answer_to(line.split("\t"), {"fake": Fake}, prepared))
            return {key: float(value) for key, value in (field.split("=") for field in answers.getvalue().split("\t")[1:])}

        with unittest.mock.patch.object(turns, "PAUSE_S", 0):
            readings = turns.take_turns(sessions, ask, 3)
        self.assertEqual(Fake.log, ["a", "b"] * 3)
        self.assertEqual(readings, [{"a": 0.5, "b": 1.0}] * 3)
        self.assertEqual(sessions["a"].facts, {"tokens": 2.0, "inertia": 7.0})
        self.assertEqual(prepared, {})

    def test_a_program_that_does_not_answer_is_ended(self):
        program = turns.Program([sys.executable, "-c", "import time; time.sleep(60)"])
        with unittest.mock.patch.object(turns, "PATIENCE_S", 0.1), self.assertRaisesRegex(turns.TurnError, "no answer"):
            program.ask("turn", "x")
        self.assertIsNotNone(program.child.poll())

    def test_a_program_that_ends_is_an_error(self):
        program = turns.Program([sys.executable, "-c", ""])
        with self.assertRaisesRegex(turns.TurnError, "ended"):
            program.ask("turn", "x")
        program.close()


class Rows(unittest.TestCase):
    """Every rate of every scene can be computed from what its sessions say."""

    FACTS = {"tokens", "weight_bytes", "kv_bytes", "bytes", "flops", "pairs", "words", "pages", "inertia", "energy"}

    def test_all_scenes(self):
        gguf = {"bf16": "a", "int8": "b"}
        scenes = [*decoder_rows.scenes("m", gguf, 2, None), *decoder_rows.scenes("m", gguf, 2, 8192),
                  *codec_rows.scenes(2), *analysis_rows.scenes(2, False)]
        operations = set()
        for sessions, rows in scenes:
            seconds = {name: 2.0 + index for index, name in enumerate(sessions)}
            facts = {name: dict.fromkeys(self.FACTS, 6.0) for name in sessions}
            for row in rows:
                if row.probe:
                    self.assertIn(row.probe, sessions)
                self.assertNotIn(row.operation, operations)
                operations.add(row.operation)
                self.assertGreater(row.ours(seconds, facts) * row.peer(seconds, facts), 0, row.operation)
                if row.limit:
                    self.assertGreater(row.limit(seconds, facts), 0, row.operation)
                if row.unequal:
                    self.assertIsNone(row.unequal(facts))
                    facts["ours"]["inertia"] = facts["ours"]["energy"] = 5.9
                    self.assertIn("unequal work", row.unequal(facts))
                    facts["ours"] = dict.fromkeys(self.FACTS, 6.0)

    def test_attention_is_what_a_context_adds(self):
        sessions, rows = decoder_rows.deep("m", {"bf16": "a"}, 2048, 1)
        seconds = {name: 1.0 for name in sessions} | {"ours f16": 1.5, "llama.cpp f16": 3.0}
        facts = {name: {"tokens": 8.0, "weight_bytes": 1.0, "kv_bytes": 1.0, "bytes": 1.0} for name in sessions}
        [row] = [row for row in rows if "attention alone" in row.operation]
        self.assertEqual(row.ours(seconds, facts) / row.peer(seconds, facts), 4.0)

    def test_the_table_says_what_is_below_and_what_is_unsure(self):
        row = {"operation": "work", "ours": 2.0, "peer": 1.0, "ratio": 2.0, "share_of_limit": None, "must": 3.0, "spread": 0.1,
               "unit": "1/s", "threads": 1}
        self.assertIn("BELOW", bench_peers.table([row], []))
        self.assertIn("no verdict", bench_peers.table([row], [0]))
        self.assertNotIn("BELOW", bench_peers.table([row], [0]))
        self.assertIn("ok", bench_peers.table([row | {"must": 2.0}], []))


class Growth(unittest.TestCase):
    def test_exponents(self):
        sizes = [512, 1024, 2048, 4096]
        self.assertAlmostEqual(bench_growth.exponent(sizes, [3.0 * size ** 1.5 for size in sizes]), 1.5)

    def test_theory_of_a_model_counts_its_weights_and_its_cache(self):
        with tempfile.TemporaryDirectory() as folder:
            weights = small_model(folder, "float16")
            shape = bench_growth.Shape(folder)
        matrices = sum(value.size for value in weights.values() if value.ndim == 2)
        self.assertEqual(shape.decode(0), 2 * matrices)
        self.assertEqual(shape.decode(1) - shape.decode(0), 2 * 2 * LAYERS * KV_HEADS * HEAD_DIM)
        products = 2 * 3 * (matrices - VOCAB * HIDDEN)
        self.assertEqual(shape.prefill(3) - products, 4 * (3 * 3 / 2) * HEADS * HEAD_DIM * LAYERS)


if __name__ == "__main__":
    unittest.main()
