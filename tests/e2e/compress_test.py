"""`kvanalyze compress` and `decompress` end to end on a small random model."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("numpy is not installed; skipped")
    sys.exit(77)

from harness import SOURCE, check, edit_json, expect_refusal, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-compress-"))
model = random_model(work / "model", "--layers", 4, "--positions", 256)
capture = work / "capture"
text = "the cache keeps what the model has seen of a text, page by page and layer by layer; " * 3
done = run("capture", "--model", model, "--prompt", text, "--prompt", "and " + text, "--prompt", text, "--max-tokens", 20,
           "--output-dir", capture)
check(done.returncode == 0, f"capture: {done.stderr}")
manifest = json.loads((capture / "manifest.json").read_text())


def tensors(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def values(folder):
    m = json.loads((folder / "manifest.json").read_text())
    shape = (m["pages"], m["kv_heads"], m["page_tokens"], m["head_dim"])
    return {name: np.frombuffer(data, "<f2", offset=256).reshape(shape).astype(np.float64)
            for name, data in tensors(folder).items()}


def compress(recipe, name, *options):
    done = run("compress", "--capture", capture, "--recipe", recipe, "--out", work / name, "--json", *options)
    check(done.returncode == 0, f"compress {recipe}: {done.stderr}")
    return json.loads(done.stdout)


def decompress(name):
    done = run("decompress", "--capture", work / name, "--out", work / (name + "-back"))
    check(done.returncode == 0, f"decompress {name}: {done.stderr}")
    return work / (name + "-back")


# Lossless recipes come back as the same bytes; equal prompts are stored once.
for recipe, name in (("dense(f16)", "dense"), ("dedup(exact)", "dedup"), ("dense(f16)|zstd", "packed")):
    report = compress(recipe, name)
    check(tensors(decompress(name)) == tensors(capture), f"{recipe}: the same tensor files")
    errors = report["compression"]["errors"]
    check(all(errors[key] == {"relative_l2": 0, "max_abs": 0} for key in ("k", "v", "attention")), f"{recipe}: {errors}")
dense, dedup = (json.loads((work / name / "report.json").read_text())["compression"] for name in ("dense", "dedup"))
check(dedup["bytes"]["sides"] <= dense["bytes"]["sides"] * 2 / 3 + 1, "the third prompt is the first again")
check(dedup["files"]["disk_bytes"] < dense["files"]["disk_bytes"], "which frees disk too")

# What a dry run predicts is what a real run holds, and it writes nothing.
RECIPES = ["dense(f16)", "quant(k=8,v=8)", "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)", "dedup(exact)",
           "lowrank(rank=4,fit_tokens=32)|quant(bits=4)", "minicache(start=0)", "nuq(bits=3)", "turboquant(bits=4)",
           "keys(plain);quant(bits=4,window=32)", "quant(k=8,v=8)|zstd(window=64)", "layers(0):dense(f16);rest:layershare(start=1)|quant(bits=8)"]
for i, recipe in enumerate(RECIPES):
    dry = compress(recipe, f"dry-{i}", "--dry-run")["compression"]
    check(not (work / f"dry-{i}").exists(), f"{recipe}: a dry run writes nothing")
    real = compress(recipe, f"real-{i}", "--zstd", i % 4)["compression"]
    check(dry["bytes"] == real["bytes"], f"{recipe}: {dry['bytes']} predicted, {real['bytes']} held")
    check(real["bytes"]["predicted_bytes"] == real["bytes"]["achieved_bytes"], f"{recipe}: {real['bytes']}")
    ledger = real["bytes"]["ledger"]
    held = sum(ledger[part] for part in ("payload", "scales", "side", "tables", "slack"))
    check(held == ledger["held"] == real["bytes"]["bytes_held"], f"{recipe}: the ledger adds up")
    # Bytes on disk are those of the files, report aside.
    folder = work / f"real-{i}"
    on_disk = {p.name: p.stat().st_size for p in folder.iterdir() if not p.name.startswith("report.")}
    parts = {part["name"]: part for part in real["files"]["parts"]}
    check({name: part["disk_bytes"] for name, part in parts.items()} == on_disk, f"{recipe}: {parts} {on_disk}")
    check(real["files"]["disk_bytes"] == sum(on_disk.values()), f"{recipe}: all files")
    payload = next(part for name, part in parts.items() if name.startswith("payload"))
    check(payload["raw_bytes"] == real["bytes"]["achieved_bytes"], f"{recipe}: the payload file is the ledger's")
    if i % 4 == 0:
        check(payload["raw_bytes"] == payload["disk_bytes"], f"{recipe}: --zstd 0 keeps files as they are")
    dry_parts = [(part["name"].split(".")[0], part["raw_bytes"]) for part in dry["files"]["parts"]]
    check(dry_parts == [(n.split(".")[0], p["raw_bytes"]) for n, p in parts.items() if n != "manifest.json"],
          f"{recipe}: raw bytes of the files are predicted too")

# What codebooks were learnt from is said.
check(compress("nuq(bits=3)", "own", "--dry-run")["compression"]["learnt_from"] == "the capture itself", "its own pages")
taught = compress("nuq(bits=3)", "taught", "--dry-run", "--calibration", capture)["compression"]
check(taught["learnt_from"] == str(capture), "a capture to learn from")

# Errors against NumPy, from the captures before and after.
exact = values(capture)
for i, recipe in ((1, "quant(k=8,v=8)"), (2, "quant 4"), (4, "lowrank")):
    read = values(decompress(f"real-{i}"))
    layers = json.loads((work / f"real-{i}/report.json").read_text())["compression"]["layers"]
    for row in layers:
        for side in ("k", "v"):
            name = f"layer_{row['layer']:02d}.{side}.safetensors"
            # What was read was rounded to f16 on its way into the capture.
            slack = np.linalg.norm(exact[name]) * 2**-11
            expected = np.linalg.norm(read[name] - exact[name])
            found = row[side]["relative_l2"] * np.linalg.norm(exact[name])
            check(abs(found - expected) <= slack, f"{recipe} {name}: {found} against {expected}")
            check(abs(row[side]["max_abs"] - np.abs(read[name] - exact[name]).max()) <= np.abs(exact[name]).max() * 2**-10,
                  f"{recipe} {name}: largest error")

# The attention error against NumPy, where the keys are captured as attention reads them.
read = values(work / "real-2-back")
starts, spans, first = manifest["page_starts"], [], 0
for prompt in manifest["prompts"]:
    spans.append((first, first + prompt["pages"]))
    first += prompt["pages"]


def attention(k, v, queries, positions):
    scores = queries @ k.T / np.sqrt(k.shape[1])
    scores[np.arange(k.shape[0])[None, :] > positions[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v


layers = json.loads((work / "real-2/report.json").read_text())["compression"]["layers"]
for row in layers:
    k, v = (f"layer_{row['layer']:02d}.{side}.safetensors" for side in "kv")
    error = total = 0.0
    for low, high in spans:
        for head in range(manifest["kv_heads"]):
            flat = [a[low:high, head].reshape(-1, manifest["head_dim"]) for a in (exact[k], exact[v], read[k], read[v])]
            tokens = flat[0].shape[0]
            most = min(tokens, 64)
            positions = np.array([(i + 1) * tokens // most - 1 for i in range(most)])
            base = attention(flat[0], flat[1], flat[0][positions], positions)
            error += ((attention(flat[2], flat[3], flat[0][positions], positions) - base) ** 2).sum()
            total += (base**2).sum()
    expected = np.sqrt(error / total)
    check(abs(row["attention"]["relative_l2"] - expected) <= 0.02 * expected + 1e-4,
          f"attention error of layer {row['layer']}: {row['attention']} against {expected}")

# The folders of a stored run are read by analyze, rendered, and checked by an outside schema validator.
done = run("analyze", "--capture", work / "dense-back", "--no-plots", "--output-dir", work / "analysis", "--quiet")
check(done.returncode == 0, f"analyze: {done.stderr}")
check(json.loads((work / "analysis/report.json").read_text())["provenance"]["recipe"] == "dense(f16)", "the recipe")
done = run("render", work / "dense", "--output-dir", work / "rendered", "--quiet")
check(done.returncode == 0 and "Bytes held" in (work / "rendered/report.html").read_text(), f"render: {done.stderr}")
try:
    import jsonschema
    schema = json.loads((SOURCE / "reports/report.schema.json").read_text())
    for name in ("dense", "real-2"):
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads((work / name / "report.json").read_text())))
        check(not errors, f"{name}: {[e.message[:200] for e in errors[:2]]}")
except ImportError:
    print("jsonschema is not installed; that check is left out")
if shutil.which("zstd"):
    raw = subprocess.run(["zstd", "-dc", work / "real-1/payload.bin.zst"], capture_output=True).stdout
    report = json.loads((work / "real-1/report.json").read_text())["compression"]
    check(len(raw) == report["bytes"]["achieved_bytes"], "the zstd program reads the files too")

# A terminal's form, and the same bytes again with other threads.
done = run("compress", "--capture", capture, "--recipe", "quant(bits=4)", "--out", work / "shown", "--threads", 1)
check(done.returncode == 0 and "Held in memory" in done.stdout and "On disk" in done.stdout, done.stdout + done.stderr)
again = run("compress", "--capture", capture, "--recipe", "quant(bits=4)", "--out", work / "again", "--threads", 3, "--quiet")
check(again.stdout == "", "quiet")
check((work / "shown/payload.bin.zst").read_bytes() == (work / "again/payload.bin.zst").read_bytes(), "the same payload")

# Bad input.
expect_refusal("no capture", "compress", "--capture", work / "nowhere", "--recipe", "quant", mentions=["nowhere"])
expect_refusal("no recipe", "compress", "--capture", capture, "--recipe", "qant(bits=4)", mentions=["quant"])
expect_refusal("attention", "compress", "--capture", capture, "--recipe", "evict(0.5)", mentions=["evict", "no queries"])
expect_refusal("level", "compress", "--capture", capture, "--recipe", "quant", "--zstd", 99, mentions=["--zstd"])
expect_refusal("calibration", "compress", "--capture", capture, "--recipe", "quant", "--calibration", capture,
               mentions=["--calibration"])
expect_refusal("onto itself", "compress", "--capture", capture, "--recipe", "quant", "--out", capture,
               mentions=["safetensors"])
expect_refusal("an ordinary capture", "decompress", "--capture", capture, "--out", work / "no", mentions=["kvanalyze.compressed"])
expect_refusal("a compressed one", "analyze", "--capture", work / "dense", "--output-dir", work / "no",
               mentions=["kvanalyze.capture"])
shutil.copytree(work / "real-2", work / "newer")
edit_json(work / "newer/manifest.json", version=9)
expect_refusal("newer", "decompress", "--capture", work / "newer", "--out", work / "no", mentions=["version", "9"])
check(not (work / "no").exists(), "nothing is left of refused runs")

shutil.rmtree(work)
finish()
