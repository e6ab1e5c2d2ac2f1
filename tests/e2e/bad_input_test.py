"""Every kind of bad input ends in one clear line, exit code 1, within seconds, with nothing half-written."""
import json
import os
import pathlib
import shutil
import struct
import sys
import tempfile

try:
    import numpy as np
    from safetensors.numpy import load_file, save_file
except ImportError:
    print("numpy or safetensors is not installed; skipped")
    sys.exit(77)

from harness import check, edit_json, expect_refusal, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-bad-input-"))
good = random_model(work / "good")
text = "The quick brown fox jumps over the lazy dog. " * 4


def variant(name):
    target = work / name
    shutil.copytree(good, target)
    return target


def refuse_model(name, change, mentions=()):
    folder = variant(name)
    change(folder)
    out = work / f"out-{name}"
    expect_refusal(name, "--model", folder, "--prompt", text, "--output-dir", out, "--quiet", mentions=mentions)
    check(not out.exists() or not any(out.iterdir()), f"{name}: something was left in the output folder")


def rewrite_header(folder, edit):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    edit(header)
    body = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body)) + body + raw[8 + length:])


def tensors(folder, edit):
    path = folder / "model.safetensors"
    content = load_file(path)
    edit(content)
    save_file(content, path)



# Weights.
def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def huge_header(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def overlap(folder):
    def edit(header):
        names = [name for name in header if name != "__metadata__"]
        header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
    rewrite_header(folder, edit)


def set_nan(content):
    content["model.norm.weight"] = content["model.norm.weight"].copy()
    content["model.norm.weight"][3] = np.nan


refuse_model("truncated", truncate, ["model.safetensors"])
refuse_model("oversized-header", huge_header, ["header"])
refuse_model("overlapping-offsets", overlap, ["model.safetensors"])
refuse_model("wrong-dtype", lambda f: rewrite_header(f, lambda h: h["model.norm.weight"].update(dtype="I16")),
             ["model.norm.weight"])
refuse_model("wrong-shape", lambda f: tensors(f, lambda t: t.update({"model.norm.weight": np.ones(7, np.float16)})),
             ["model.norm.weight"])
refuse_model("nan-weights", lambda f: tensors(f, set_nan), ["model.norm.weight", "nan"])
refuse_model("missing-tensor", lambda f: tensors(f, lambda t: t.pop("model.norm.weight")), ["model.norm.weight"])
refuse_model("empty-weights", lambda f: (f / "model.safetensors").write_bytes(b""), ["model.safetensors"])
refuse_model("no-weights", lambda f: (f / "model.safetensors").unlink(), ["safetensors"])


def sharded_missing(folder):
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {name: "model-00001-of-00002.safetensors" for name in names}}))


def sharded_escape(folder):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": "../outside.safetensors"}}))


refuse_model("shard-missing", sharded_missing, ["model-00001-of-00002.safetensors"])
refuse_model("shard-outside", sharded_escape, ["outside.safetensors"])

# Configuration.
config = "config.json"
refuse_model("config-not-json", lambda f: (f / config).write_text("{\"a\": "), [config])
refuse_model("config-deep", lambda f: (f / config).write_text("[" * 100000), [config])
refuse_model("config-bad-utf8", lambda f: (f / config).write_bytes(b'{"model_type": "\xff\xfe"}'), [config])
refuse_model("config-huge-number", lambda f: edit_json(f / config, num_hidden_layers=10**30), ["num_hidden_layers"])
refuse_model("config-negative", lambda f: edit_json(f / config, num_attention_heads=-4), ["num_attention_heads"])
refuse_model("config-string", lambda f: edit_json(f / config, hidden_size="big"), ["hidden_size"])
refuse_model("config-missing-field", lambda f: edit_json(f / config, hidden_size=None), ["hidden_size"])
refuse_model("config-group", lambda f: edit_json(f / config, num_key_value_heads=3), ["num_key_value_heads"])
refuse_model("architecture", lambda f: edit_json(f / config, architectures=["MambaForCausalLM"], model_type="mamba"),
             ["mamba", "llama"])
refuse_model("sliding-window", lambda f: edit_json(f / config, architectures=["MistralForCausalLM"],
                                                   model_type="mistral", sliding_window=64),
             ["sliding_window of 64", "--max-context"])
refuse_model("rope-scaling", lambda f: edit_json(f / config, rope_scaling={"rope_type": "yarn", "factor": 4.0}),
             ["yarn"])
refuse_model("no-config", lambda f: (f / config).unlink(), [config])
refuse_model("activation", lambda f: edit_json(f / config, hidden_act="snake"), ["snake"])

# Tokenizers.
def tokenizer(folder, edit):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


refuse_model("tokenizer-not-json", lambda f: (f / "tokenizer.json").write_text("nonsense"), ["tokenizer.json"])
refuse_model("tokenizer-deep", lambda f: (f / "tokenizer.json").write_text('{"a":' * 100000), ["tokenizer.json"])
refuse_model("vocab-over-model", lambda f: tokenizer(f, lambda t: t["model"]["vocab"].update(extra=99999)),
             ["99999"])
refuse_model("merges-unknown", lambda f: tokenizer(f, lambda t: t["model"].update(merges=["qq zz"])), ["qq"])
refuse_model("normalizer", lambda f: tokenizer(f, lambda t: t.update(normalizer={"type": "Sphinx"})), ["Sphinx"])
refuse_model("no-tokenizer", lambda f: (f / "tokenizer.json").unlink(), ["tokenizer"])
opt_model = random_model(work / "opt", "--family", "opt")
(opt_model / "merges.txt").write_text("#version: 0.2\nqq zz\n")
expect_refusal("merges.txt", "--model", opt_model, "--prompt", text, "--output-dir", work / "out-merges", "--quiet",
               mentions=["merges.txt"])

# Prompts and options.
binary = work / "binary.txt"
binary.write_bytes(bytes(range(256)) * 10)
empty = work / "empty.txt"
empty.write_text("")
bad_jsonl = work / "bad.jsonl"
bad_jsonl.write_text('{"prompt": "fine"}\n{"prompt": \n')
other_field = work / "field.jsonl"
other_field.write_text('{"body": "hello there"}\n')
latin = work / "latin.txt"
latin.write_bytes("café au lait\n".encode("latin-1") * 40)
model = ("--model", good, "--output-dir", work / "out", "--quiet")
expect_refusal("empty prompt", *model, "--prompt", "", mentions=["empty"])
expect_refusal("blank prompt", *model, "--prompt", "  \n ", mentions=["empty"])
expect_refusal("empty file", *model, "--prompts-file", empty, mentions=["empty.txt"])
expect_refusal("binary file", *model, "--text-file", binary, mentions=["binary"])
expect_refusal("bad utf-8", *model, "--prompts-file", latin, mentions=["UTF-8"])
expect_refusal("bad jsonl", *model, "--prompts-file", bad_jsonl, mentions=["bad.jsonl:2"])
expect_refusal("field", *model, "--prompts-file", other_field, mentions=["--prompt-field", "body"])
expect_refusal("missing file", *model, "--prompts-file", work / "nowhere.txt", mentions=["nowhere.txt"])
expect_refusal("folder as file", *model, "--prompts-file", work, mentions=["regular file"])
expect_refusal("unknown set", *model, "--prompt-set", "poetry", mentions=["poetry", "general"])
expect_refusal("page size 0", *model, "--prompt", text, "--page-size", "0", mentions=["--page-size"])
expect_refusal("page over context", *model, "--prompt", text, "--page-size", "4096", mentions=["page"])
expect_refusal("unknown option", *model, "--frobnicate", mentions=["--frobnicate"])
expect_refusal("wrong type", *model, "--threads", "many", mentions=["--threads"])
expect_refusal("unknown dtype", *model, "--prompt", text, "--kv-dtype", "int3", mentions=["--kv-dtype"])
expect_refusal("unknown command", "frobnicate", mentions=["frobnicate"])
expect_refusal("unknown method", "methods", "qaunt", mentions=["qaunt", "quant"])
expect_refusal("no model", mentions=["--model"])
expect_refusal("model not found", "--model", work / "nowhere", "--offline", mentions=["nowhere"])
expect_refusal("prompt ids", "generate", "--model", good, "--prompt-ids", "1 2 x", mentions=["--prompt-ids"])
expect_refusal("id over vocabulary", "generate", "--model", good, "--prompt-ids", "1 2 100000",
               mentions=["100000"])
expect_refusal("context over positions", "size", "--model", good, "--context", 10**6, mentions=["2048"])

# Output that cannot be written.
blocked = work / "blocked"
blocked.write_text("a file where a folder should be")
expect_refusal("output is a file", "--model", good, "--prompt", text, "--quiet", "--output-dir", blocked / "report",
               mentions=["blocked"])
if os.path.exists("/dev/full"):
    expect_refusal("capture to a file", "capture", "--model", good, "--prompt", text, "--quiet", "--output-dir",
                   "/dev/full", mentions=["/dev/full"])

# Captures.
capture = work / "capture"
done = run("capture", "--model", good, "--prompt", text, "--output-dir", capture, "--quiet")
check(done.returncode == 0, f"capture: {done.stderr}")


def refuse_capture(name, change, mentions=()):
    folder = work / f"capture-{name}"
    shutil.copytree(capture, folder)
    change(folder)
    expect_refusal(f"capture {name}", "analyze", "--capture", folder, "--output-dir", work / "out-capture", "--quiet",
                   mentions=mentions)


if done.returncode == 0:
    pages = sorted(p.name for p in capture.glob("*.safetensors"))[0]

    def flip(folder):
        raw = bytearray((folder / pages).read_bytes())
        raw[-9] ^= 0x40
        (folder / pages).write_bytes(raw)

    refuse_capture("flipped", flip, [pages])
    refuse_capture("truncated", lambda f: (f / pages).write_bytes((f / pages).read_bytes()[:-64]), [pages])
    refuse_capture("missing", lambda f: (f / pages).unlink(), [pages])
    refuse_capture("newer", lambda f: edit_json(f / "manifest.json", version=99), ["99"])
    refuse_capture("no-manifest", lambda f: (f / "manifest.json").unlink(), ["manifest.json"])
    refuse_capture("hostile-manifest", lambda f: (f / "manifest.json").write_text('{"version": 1, "layers": 1e18}'),
                   ["manifest.json"])
expect_refusal("capture folder missing", "analyze", "--capture", work / "nowhere", mentions=["nowhere"])

# Reports.
broken = work / "report.json"
broken.write_text('{"schema": "kvanalyze.report", "schema_version": 99}')
expect_refusal("newer report", "render", broken, mentions=["99"])
broken.write_text("[1, 2")
expect_refusal("broken report", "render", broken, mentions=["report.json"])

left = [path for path in work.rglob("*.tmp*")]
check(not left, f"temporary files were left: {left}")
shutil.rmtree(work)
finish()
