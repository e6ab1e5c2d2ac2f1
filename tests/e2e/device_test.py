"""--device: what it takes, what it says without a GPU, and what the reports name."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy  # noqa: F401
    import safetensors  # noqa: F401
except ImportError:
    print("numpy or safetensors is not installed; skipped")
    sys.exit(77)

from harness import check, expect_refusal, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-device-"))
model = random_model(work / "model")
text = work / "text.txt"
text.write_text("A text that is long enough for a window of tokens. " * 20)
prompt = ["--prompt", "A prompt that is long enough for a few pages. " * 4]
config = work / "config.yaml"
config.write_text(f"model: {model}\nprompts: A prompt of some tokens.\nmax_gen_tokens: 4\nstrategies: [Baseline]\n"
                  f"output_dir: {work / 'results'}\n")
commands = {
    "main job": ["--model", model, *prompt, "--no-ab", "--no-plots", "--output-dir", work / "main"],
    "capture": ["capture", "--model", model, *prompt, "--output-dir", work / "capture"],
    "analyze": ["analyze", "--capture", work / "capture", "--no-plots", "--output-dir", work / "analysis"],
    "ab": ["ab", "--model", model, "--text", text, "--recipe", "quant(bits=8)", "--context", 128, "--no-timing",
           "--no-plots", "--output-dir", work / "ab"],
    "generate": ["generate", "--model", model, "--prompt", "A", "--max-tokens", 2],
    "run": ["run", "--config", config, "--no-plots"],
}

for name, command in commands.items():
    expect_refusal(f"{name}, device of no kind", *command, "--device", "tpu",
                   mentions=["--device", "expected cpu, cuda or auto", "tpu"])

has_gpu = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True).stdout.strip()
if not has_gpu:
    for name, command in commands.items():
        expect_refusal(f"{name}, no GPU", *command, "--device", "cuda", mentions=["--device cuda", "--device cpu"])
        check(not (work / "main").exists() and not (work / "analysis").exists() and not (work / "ab").exists() and not (work / "capture").exists(),
              f"{name}: a refused run wrote something")
    # Said before a model is looked for.
    expect_refusal("no GPU, no model", "--model", work / "nowhere", "--device", "cuda", mentions=["--device cuda"])
    done = run("doctor", "--device", "cuda")
    check(done.returncode == 1 and "--device cuda" in done.stdout, f"doctor: {done.stdout}{done.stderr}")

for name, command in commands.items():
    done = run(*command, "--device", "cpu")
    check(done.returncode == 0, f"{name} on the CPU: {done.stderr}")
for folder in ("main", "analysis"):
    provenance = json.loads((work / folder / "report.json").read_text())["provenance"]
    check(provenance["analysis_device"] == "cpu", f"{folder}: analysed on {provenance['analysis_device']}")
for folder in ("main", "ab"):
    report = json.loads((work / folder / "report.json").read_text())
    check(report["provenance"]["device"] == "cpu", f"{folder}: device {report['provenance']['device']}")
    check(report["provenance"]["options"]["device"] == "cpu", f"{folder}: the option is not in the report")
rows = [json.loads(line) for line in (work / "results/results.jsonl").read_text().splitlines()]
check(rows and all(row["device"] == "cpu" for row in rows), "trials do not name their device")
summary = json.loads((work / "results/experiment_summary.json").read_text())
check(summary["experiment_summary"]["provenance"]["device"] == "cpu", "the summary does not name the device")

done = run("doctor", "--model", model)
check(done.returncode == 0 and "--device auto decodes on" in done.stdout, f"doctor: {done.stdout}{done.stderr}")
if not has_gpu:
    check("--device auto decodes on cpu" in done.stdout, f"doctor: {done.stdout}")
    done = run(*commands["generate"], "--device", "auto")
    check(done.returncode == 0 and not done.stderr, f"auto without a GPU says nothing of it: {done.stderr}")

shutil.rmtree(work)
finish()
