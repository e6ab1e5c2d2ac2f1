"""The main job end to end on a small random model: report, capture, analysis, rendering, repeatability."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy as np
    from safetensors.numpy import load_file
except ImportError:
    print("numpy or safetensors is not installed; skipped")
    sys.exit(77)

from harness import SOURCE, check, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-main-job-"))
model = random_model(work / "model", "--family", "llama", "--layers", 3, "--heads", 4, "--kv-heads", 2)
settings = ["--model", model, "--limit", 2, "--max-context", 200, "--max-tokens", 8, "--seed", 7]
RUN_SPECIFIC = ("provenance", "timing")


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def without_run(report):
    return {key: value for key, value in report.items() if key not in RUN_SPECIFIC}


done = done_main = run(*settings, "--output-dir", work / "one-step")
check(done.returncode == 0, f"main job: {done.stderr}")
report = report_of(work / "one-step")
for name in ("report.json", "report.md", "report.html", "partners.csv"):
    check((work / "one-step" / name).stat().st_size > 0, f"{name} is missing or empty")
if shutil.which("gnuplot"):
    plots = {path.name for path in (work / "one-step/plots").glob("*.png") if path.stat().st_size > 1000}
    for name in ("similarity_distribution.png", "layer_similarity.png", "compression_opportunities.png",
                 "heatmap_layer_00.png", "heatmap_layer_02.png", "cross_layer.png", "growth.png"):
        check(name in plots, f"plots/{name} is missing or empty; found {sorted(plots)}")
check("random-llama" in done.stdout, "the summary names the model")
check(report["cache"]["ledger"]["held"] > 0, "the ledger counts bytes")
check(len(report["sets"]) == 3, "three prompt sets")

# Capture, then analyse: number for number the same as in one step; the analysis at another thread count.
done = run("capture", *settings[:-2], "--output-dir", work / "capture")
check(done.returncode == 0, f"capture: {done.stderr}")
done = run("analyze", "--capture", work / "capture", "--seed", 7, "--output-dir", work / "two-step", "--threads", 3)
check(done.returncode == 0, f"analyze: {done.stderr}")
two_steps = without_run(report_of(work / "two-step"))
# A capture has no model to judge recipes with.
one_step = {key: value for key, value in without_run(report).items() if key != "ab"}
one_step["definitions"] = {term: one_step["definitions"].get(term) for term in two_steps["definitions"]}
check(one_step == two_steps, "one step and two steps differ")

# The report ends with recipes judged on the same prompts; with --no-ab it does not.
rows = report["ab"]["rows"]
check([row["recipe"].split("(")[0] for row in rows][:3] == ["dense", "quant", "quant"], f"rows {[r['recipe'] for r in rows]}")
check(len(rows) == 7 and all(row["compression"] > 0 for row in rows), "a row of each family and the baseline")
check(rows[2]["bytes_held"] < rows[1]["bytes_held"] < rows[0]["bytes_held"], "fewer bits hold fewer bytes")
check("Compressed inside the decoder" in done_main.stdout, "the summary has the recipes")
done = run(*settings, "--no-ab", "--no-plots", "--quiet", "--output-dir", work / "no-ab")
check(done.returncode == 0 and "ab" not in report_of(work / "no-ab"), f"--no-ab: {done.stderr}")
done = run(*settings, "--recipe", "dense(bf16)", "--no-plots", "--quiet", "--output-dir", work / "one-recipe")
check([row["recipe"] for row in report_of(work / "one-recipe")["ab"]["rows"]] == ["dense(f16)", "dense(bf16)"], done.stderr)
done = run(*settings, "--recipe", "qaunt", "--output-dir", work / "typo")
check(done.returncode == 1 and "qaunt" in done.stderr and not (work / "typo").exists(), f"a wrong recipe: {done.stderr}")

# A capture opens in NumPy in one line, with the shape that the manifest says.
manifest = json.loads((work / "capture/manifest.json").read_text())
keys = load_file(work / "capture/layer_00.k.safetensors")["k"]
check(keys.shape == (sum(p["pages"] for p in manifest["prompts"]), 2, 16, 16), f"shape {keys.shape}")
check(np.isfinite(keys.astype(np.float32)).all(), "captured keys are finite")

# The report's numbers against an independent NumPy computation from the capture.
done = subprocess.run([sys.executable, SOURCE / "scripts/check_report.py", work / "capture",
                       work / "one-step/report.json"], capture_output=True, text=True)
check(done.returncode == 0, f"check_report.py: {done.stdout[-2000:]}{done.stderr[-2000:]}")

# Rendering again changes nothing; the old report survives a failed run.
before = {path.name: path.read_bytes() for path in (work / "one-step").iterdir() if path.is_file()}
done = run("render", work / "one-step/report.json", "--output-dir", work / "rendered")
check(done.returncode == 0, f"render: {done.stderr}")
for name in ("report.md", "report.html"):
    check((work / "rendered" / name).read_bytes() == before[name], f"{name} differs when rendered again")
run("--model", work / "nowhere", "--offline", "--output-dir", work / "one-step")
check((work / "one-step/report.json").read_bytes() == before["report.json"], "a failed run touched the old report")

# The schema that is shipped describes the report that is written.
try:
    import jsonschema

    schema = json.loads((SOURCE / "reports/report.schema.json").read_text())
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(report))
    check(not errors, f"report.json breaks its schema: {[e.message[:200] for e in errors[:3]]}")
except ImportError:
    print("jsonschema is not installed: the schema was not checked")

# Every family, key basis and cache type runs from the first to the last step.
for family in ("opt", "gpt2"):
    folder = random_model(work / family, "--family", family)
    done = run("--model", folder, "--quick", "--output-dir", work / f"report-{family}", "--quiet", "--no-plots")
    check(done.returncode == 0, f"{family}: {done.stderr}")
for options in (["--key-basis", "plain"], ["--key-basis", "page-relative"], ["--kv-dtype", "bf16"],
                ["--kv-dtype", "f32", "--page-size", "8"], ["--weights", "f32"], ["--weights", "int8"], ["--batch-size", "1"]):
    done = run(*settings, *options, "--no-ab", "--output-dir", work / "options", "--quiet", "--no-plots")
    check(done.returncode == 0, f"{options}: {done.stderr}")

shutil.rmtree(work)
finish()
