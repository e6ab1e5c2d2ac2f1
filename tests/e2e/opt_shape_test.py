"""A model folder of OPT-125m's shape (12 layers x 12 heads x 64, vocabulary 50,272) from the first to the last step."""
import json
import pathlib
import shutil
import sys
import tempfile

try:
    import safetensors  # noqa: F401
except ImportError:
    print("safetensors is not installed; skipped")
    sys.exit(77)

from harness import check, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-opt-shape-"))
model = random_model(work / "opt", "--family", "opt", "--layers", 12, "--heads", 12, "--head-dim", 64,
                     "--vocab", 50272)

done = run("size", "--model", model, "--context", 2048, "--json")
check(done.returncode == 0 and json.loads(done.stdout)["bytes"] == 2 * 12 * 12 * 64 * 2 * 2048, done.stdout)

done = run("--model", model, "--quick", "--output-dir", work / "report", timeout=600)
check(done.returncode == 0, f"main job: {done.stderr}")
report = json.loads((work / "report/report.json").read_text())
check((report["model"]["layers"], report["model"]["kv_heads"], report["model"]["head_dim"]) == (12, 12, 64),
      f"shape {report['model']}")
check(report["model"]["position_encoding"] == "learned", "OPT has learned positions")
check({row["basis"] for row in report["similarity"] if row["side"] == "K"} == {"plain"}, "no RoPE, one kind of keys")
check(report["cache"]["key_basis"] == "plain", f"no RoPE, plain keys: {report['cache']['key_basis']}")
check(report["model"]["weights"] in ("f32", "f16", "bf16"), f"type of the weights: {report['model']['weights']}")
check("random weights" in (work / "report/report.md").read_text(), "the report says what the weights are")

done = run("generate", "--model", model, "--prompt-ids", "2 100 200", "--max-tokens", 5, "--print-ids", "--ignore-eos")
ids = done.stdout.split()
check(len(ids) == 5 and all(0 <= int(i) < 50272 for i in ids), f"generate: {done.stdout} {done.stderr}")
again = run("generate", "--model", model, "--prompt-ids", "2 100 200", "--max-tokens", 5, "--print-ids",
            "--ignore-eos", "--threads", 1)
check(again.stdout == done.stdout, "the same ids at another thread count")
expect = run("generate", "--model", model, "--prompt-ids", " ".join(["5"] * 2049), "--max-tokens", 1)
check(expect.returncode == 1 and "2048" in expect.stderr, f"over 2,048 positions: {expect.stderr}")

shutil.rmtree(work)
finish()
