"""Tests of the model fetching scripts that need no network: checkpoints and GGUF files made here, read back.

Writes PyTorch checkpoints with pickle itself, as PyTorch lays them out, so that PyTorch is not needed.
"""

import collections
import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tempfile
import types
import unittest
import zipfile

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import gguf
    import numpy as np
    import tokenizers
    import xxhash  # noqa: F401
    from safetensors.numpy import load_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import fetch_gguf
import fetch_hub
import fetch_model
from fetch_common import SIDECAR, FetchError, tensor_hash, write_safetensors
from fetch_torch_bin import LEGACY_MAGIC, read_torch_bin

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fake_torch():
    """Names that pickle under the modules that PyTorch's have."""
    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")
    for name in ("FloatStorage", "HalfStorage", "BFloat16Storage", "BoolStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("the reader must not call what it reads")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    sys.modules.update({"torch": torch, "torch._utils": utils})
    return torch, utils


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


class Pickler(pickle.Pickler):
    """Pickles Tensor as PyTorch does; storages are (type, key, array)."""

    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.torch, self.utils = fake_torch()
        self.legacy = legacy

    def persistent_id(self, value):
        if isinstance(value, tuple) and len(value) == 3 and value[0] in ("FloatStorage", "HalfStorage",
                                                                         "BFloat16Storage", "BoolStorage"):
            pid = ("storage", getattr(self.torch, value[0]), value[1], "cpu", value[2].size)
            return pid + (None,) if self.legacy else pid
        return None

    def reducer_override(self, value):
        if isinstance(value, Tensor):
            return self.utils._rebuild_tensor_v2, (value.storage, value.offset, value.shape, value.strides, False,
                                                   collections.OrderedDict())
        return NotImplemented


def save_zip(path, value, storages):
    stream = io.BytesIO()
    Pickler(stream, legacy=False).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for _, key, array in storages:
            archive.writestr(f"archive/data/{key}", array.tobytes())


def save_legacy(path, value, storages):
    with open(path, "wb") as file:
        for part in (LEGACY_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(part, file, protocol=2)
        Pickler(file, legacy=True).dump(value)
        pickle.dump([key for _, key, _ in storages], file, protocol=2)
        for _, _, array in storages:
            file.write(struct.pack("<q", array.size) + array.tobytes())


class InFolder(unittest.TestCase):
    def setUp(self):
        self.holder = tempfile.TemporaryDirectory()
        self.addCleanup(self.holder.cleanup)
        self.folder = self.holder.name

    def path(self, *parts):
        path = os.path.join(self.folder, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path


class TorchBin(InFolder):
    def storages(self):
        return [("FloatStorage", "0", np.arange(12, dtype=np.float32)),
                ("HalfStorage", "1", np.array([1.5, -2], np.float16)),
                ("BFloat16Storage", "2", np.array([0x3F80, 0xC000, 0x7F7F], np.uint16)),
                ("BoolStorage", "3", np.array([True, False]))]

    def checkpoint(self, storages):
        wide, half, brain, mask = storages
        return collections.OrderedDict([
            ("decoder.embed_tokens.weight", Tensor(wide, 0, (3, 4), (4, 1))),
            ("turned", Tensor(wide, 1, (4, 2), (1, 4))),
            ("half", Tensor(half, 0, (2,), (1,))),
            ("brain", Tensor(brain, 0, (3,), (1,))),
            ("mask", Tensor(mask, 0, (1, 2), (2, 1))),
            ("lm_head.weight", Tensor(wide, 0, (3, 4), (4, 1))),
        ])

    def test_both_containers(self):
        for save in (save_zip, save_legacy):
            storages = self.storages()
            save(self.path("m.bin"), self.checkpoint(storages), storages)
            read = read_torch_bin(self.path("m.bin"))
            self.assertEqual(sorted(read), ["brain", "decoder.embed_tokens.weight", "half", "mask", "turned"])
            np.testing.assert_array_equal(read["decoder.embed_tokens.weight"][1], storages[0][2].reshape(3, 4))
            np.testing.assert_array_equal(read["turned"][1], [[1, 5], [2, 6], [3, 7], [4, 8]])
            self.assertEqual(read["brain"][0], "bfloat16")
            np.testing.assert_array_equal(read["brain"][1], storages[2][2])
            self.assertEqual(read["mask"][0], "bool")

    def refused(self, value, storages, pattern, save=save_zip):
        save(self.path("m.bin"), value, storages)
        with self.assertRaisesRegex(FetchError, "m.bin: .*" + pattern):
            read_torch_bin(self.path("m.bin"))

    def test_runs_nothing(self):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (os.path.join(folder, "owned"),)

        folder = self.folder
        for save in (save_zip, save_legacy):
            self.refused({"a": Evil()}, [], r"posix\.mkdir.*refused", save)
        self.assertFalse(os.path.exists(self.path("owned")))

    def test_stays_inside_its_storages(self):
        storages = self.storages()
        for tensor in (Tensor(storages[0], 0, (4, 4), (4, 1)), Tensor(storages[0], -1, (2,), (1,)),
                       Tensor(storages[0], 0, (3, 4), (-4, 1)), Tensor(storages[0], 12, (1,), (1,)),
                       Tensor(storages[0], 0, (2**40, 2**40), (2**40, 1))):
            self.refused({"a": tensor}, storages, "outside its storage")

    def test_damaged_files(self):
        storages = self.storages()
        for save in (save_zip, save_legacy):
            save(self.path("whole.bin"), self.checkpoint(storages), storages)
            data = pathlib.Path(self.path("whole.bin")).read_bytes()
            for keep in range(0, len(data) - 1, 41):
                pathlib.Path(self.path("m.bin")).write_bytes(data[:keep])
                with self.assertRaises(FetchError):
                    read_torch_bin(self.path("m.bin"))
        self.refused([1, 2], [], "dictionary")


class Safetensors(InFolder):
    def test_hash_is_that_of_the_program(self):
        # tests/runtime/io/safetensors_test.cc expects the same for these two tensors, in one file or in two.
        one = np.frombuffer(b"1234", np.float32), np.frombuffer(b"5678", np.float32)
        write_safetensors(self.path("x", "1.safetensors"), {"a": ("float32", one[0])})
        write_safetensors(self.path("x", "2.safetensors"), {"b": ("float32", one[1])})
        self.assertEqual(tensor_hash(self.path("x")), "xxh3:8ea8a26a1abcb318408d49b95b9f7f4d")


class Hub(InFolder):
    def test_converts_a_cached_bin_without_network(self):
        snapshot = ["hub", "models--facebook--tiny", "snapshots", COMMIT]
        pathlib.Path(self.path("hub", "models--facebook--tiny", "refs", "main")).write_text(COMMIT)
        pathlib.Path(self.path(*snapshot, "config.json")).write_text("{}")
        storage = ("FloatStorage", "0", np.arange(4, dtype=np.float32))
        save_zip(self.path(*snapshot, "pytorch_model.bin"), {"w": Tensor(storage, 0, (2, 2), (2, 1))}, [storage])
        unreachable = fetch_hub.Unreachable("no network")
        original = fetch_hub.download
        self.addCleanup(setattr, fetch_hub, "download", original)

        def offline(*_):
            raise unreachable

        fetch_hub.download = offline
        folder = fetch_model.fetch("facebook/tiny", None, self.folder)
        self.assertEqual(os.path.basename(folder), f"facebook--tiny@{COMMIT}")
        self.assertEqual(sorted(os.listdir(folder)), ["config.json", SIDECAR, "model.safetensors"])
        np.testing.assert_array_equal(load_file(os.path.join(folder, "model.safetensors"))["w"], [[0, 1], [2, 3]])
        identity = json.loads(pathlib.Path(folder, SIDECAR).read_text())
        self.assertEqual((identity["repository"], identity["revision"]), ("facebook/tiny", COMMIT))
        self.assertEqual(identity["tensor_hash"], tensor_hash(folder))
        before = os.stat(folder).st_mtime_ns
        self.assertEqual(fetch_model.fetch("facebook/tiny", None, self.folder), folder)
        self.assertEqual(os.stat(folder).st_mtime_ns, before)
        with self.assertRaisesRegex(FetchError, "no network"):
            fetch_model.fetch("facebook/other", None, self.folder)

    def test_sharded_bins_stay_in_their_folder(self):
        pathlib.Path(self.path("pytorch_model.bin.index.json")).write_text('{"weight_map": {"a": "../x.bin"}}')
        with self.assertRaisesRegex(FetchError, r"\.\./x\.bin"):
            fetch_hub.convert_bins(self.folder, "a/b", COMMIT, self.path("cache"))
        self.assertEqual(os.listdir(self.path("cache", "models", "x")[:-2]), [])


class Gguf(InFolder):
    HEADS, KV_HEADS, HIDDEN, HEAD_DIM = 4, 2, 32, 8

    def write(self, tensors, pre="smollm"):
        writer = gguf.GGUFWriter(self.path("m.gguf"), "llama")
        writer.add_block_count(1)
        writer.add_context_length(64)
        writer.add_embedding_length(self.HIDDEN)
        writer.add_feed_forward_length(32)
        writer.add_head_count(self.HEADS)
        writer.add_head_count_kv(self.KV_HEADS)
        writer.add_rope_freq_base(10000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(["<|end|>", "a", "b", "ab", "Ġ", "1"])
        writer.add_token_types([3, 1, 1, 1, 1, 1])
        writer.add_token_merges(["a b"])
        for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id,
                    writer.add_pad_token_id):
            add(0)
        for name, value in tensors.items():
            writer.add_tensor(name, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def tensors(self):
        random = np.random.default_rng(1)
        shapes = {"token_embd.weight": (6, 32), "output_norm.weight": (32,), "blk.0.attn_norm.weight": (32,),
                  "blk.0.attn_q.weight": (32, 32), "blk.0.attn_k.weight": (16, 32), "blk.0.attn_v.weight": (16, 32),
                  "blk.0.attn_output.weight": (32, 32), "blk.0.ffn_norm.weight": (32,),
                  "blk.0.ffn_gate.weight": (32, 32), "blk.0.ffn_up.weight": (32, 32),
                  "blk.0.ffn_down.weight": (32, 32)}
        return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    def test_layout(self):
        tensors = self.tensors()
        self.write(tensors)
        os.mkdir(self.path("out"))
        fetch_gguf.convert_gguf(self.path("m.gguf"), self.path("out"))
        read = load_file(self.path("out", "model.safetensors"))
        self.assertEqual(len(read), len(tensors))
        # GGUF interleaves the two halves of a head's channels: row 2i is channel i, row 2i + 1 channel i + half.
        for name, heads, source in (("q_proj", self.HEADS, "attn_q"), ("k_proj", self.KV_HEADS, "attn_k")):
            got = read[f"model.layers.0.self_attn.{name}.weight"]
            for head in range(heads):
                for i in range(self.HEAD_DIM):
                    half = self.HEAD_DIM // 2
                    row = head * self.HEAD_DIM + 2 * (i % half) + i // half
                    np.testing.assert_array_equal(got[head * self.HEAD_DIM + i],
                                                  tensors[f"blk.0.{source}.weight"][row].astype(np.float16))
        np.testing.assert_array_equal(read["model.layers.0.self_attn.v_proj.weight"],
                                      tensors["blk.0.attn_v.weight"].astype(np.float16))
        config = json.loads(pathlib.Path(self.path("out", "config.json")).read_text())
        self.assertEqual((config["rms_norm_eps"], config["tie_word_embeddings"], config["head_dim"]), (1e-5, True, 8))
        tokenizer = tokenizers.Tokenizer.from_file(self.path("out", "tokenizer.json"))
        self.assertEqual(tokenizer.encode("ab<|end|>1 1").ids, [3, 0, 5, 4, 5])

    def test_quantized_weights_come_back(self):
        tensors = self.tensors()
        packed = gguf.quants.quantize(tensors["blk.0.ffn_up.weight"], gguf.GGMLQuantizationType.Q4_1)
        value = types.SimpleNamespace(name="blk.0.ffn_up.weight", data=packed,
                                      tensor_type=gguf.GGMLQuantizationType.Q4_1)
        name, half = fetch_gguf.convert_tensor(value, {})
        self.assertEqual(name, "model.layers.0.mlp.up_proj.weight")
        # By hand: a block of 32 holds d, m (f16) and 16 bytes; numbers 0-15 are low nibbles, 16-31 high ones.
        block = packed.reshape(-1)[:20].tobytes()
        d, m = np.frombuffer(block[:4], np.float16).astype(np.float32)
        nibbles = [b & 15 for b in block[4:]] + [b >> 4 for b in block[4:]]
        np.testing.assert_array_equal(half[0], (np.array(nibbles, np.float32) * d + m).astype(np.float16))

    def test_refusals(self):
        self.write(self.tensors() | {"blk.0.attn_q.bias": np.zeros(32, np.float32)})
        with self.assertRaisesRegex(FetchError, "blk.0.attn_q.bias"):
            fetch_gguf.convert_gguf(self.path("m.gguf"), self.folder)
        self.write(self.tensors(), pre="other")
        with self.assertRaisesRegex(FetchError, "'other'"):
            fetch_gguf.convert_gguf(self.path("m.gguf"), self.folder)


class CommandLine(InFolder):
    def run_script(self, *arguments):
        return subprocess.run([sys.executable, str(ROOT / "scripts" / "fetch_model.py"), *arguments],
                              env=os.environ | {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": self.folder},
                              capture_output=True, text=True, timeout=60, check=False)

    def test_one_line_and_exit_code_1(self):
        for name, word in (("opt-125m", "cannot be reached"), ("a b", "hub id"), ("../x", "hub id")):
            result = self.run_script(name)
            self.assertEqual((result.returncode, result.stdout, len(result.stderr.splitlines())), (1, "", 1), result)
            self.assertIn(word, result.stderr)
            result = self.run_script("--program", name)
            self.assertEqual((result.returncode, result.stderr, len(result.stdout.splitlines())), (1, "", 1), result)
        result = self.run_script("smollm2-135m", "--revision", "9")
        self.assertIn("only version 0.1.2", result.stderr)
        self.assertFalse(os.path.exists(self.path("kvanalyze", "models", "x")[:-2] + "/smollm2-135m"))

    def test_finds_what_is_there(self):
        target = os.path.dirname(self.path("kvanalyze", "models", "smollm2-135m", SIDECAR))
        pathlib.Path(target, SIDECAR).write_text("{}")
        result = self.run_script("SmolLM2-135M")
        self.assertEqual((result.returncode, result.stdout.splitlines()[-1]), (0, target), result)


if __name__ == "__main__":
    unittest.main(verbosity=1)
