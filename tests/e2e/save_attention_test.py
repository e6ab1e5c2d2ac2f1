"""--save-attention of ab, eval and run: pictures and numbers of where heads look, and no other change."""
import json
import pathlib
import shutil
import sys
import tempfile

try:
    import numpy  # noqa: F401
    import safetensors  # noqa: F401
except ImportError:
    print("numpy and safetensors are not installed; skipped")
    sys.exit(77)

from harness import check, expect_refusal, finish, random_model, run

LAYERS, HEADS = 2, 2
work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-attention-"))
model = random_model(work / "model", "--layers", LAYERS, "--kv-heads", HEADS, "--heads", 4, "--positions", 512)
text = work / "text.txt"
text.write_text(" ".join(f"word {i} of a text that goes on," for i in range(120)))
PICTURES = sorted(f"layer{layer}_head{head}.png" for layer in range(LAYERS) for head in range(HEADS))
SINK = "attentionsink(sink=4,window=16)"


def check_images(label, folder, names, plots=True):
    images = work / folder / "images"
    found = sorted(path.name for path in images.glob("*.png"))
    check(found == (PICTURES if plots and shutil.which("gnuplot") else []), f"{label}: pictures {found}")
    numbers = json.loads((images / "attention.json").read_text())
    check(numbers["schema"] == "kvanalyze.attention" and [one["name"] for one in numbers["maps"]] == names, f"{label}: maps of {[one['name'] for one in numbers['maps']]}")
    for one in numbers["maps"]:
        check(len(one["heads"]) == LAYERS * HEADS, f"{label}: heads of {one['name']}")
        blocks = -(-one["tokens"] // one["block_tokens"])
        for head in one["heads"]:
            rows = head["shares"]
            check([len(row) for row in rows] == list(range(1, blocks + 1)), f"{label}: the shape of {one['name']}")
            check(all(abs(sum(row) - 1) < 6e-3 for row in rows), f"{label}: shares of a query add up to 1")
            empty = sum(row.count(0) for row in rows)
            check((empty > 0) == (one["name"] != names[0]), f"{label}: {one['name']} has {empty} empty blocks")
    return numbers


def stable(report):
    """What no clock decides."""
    rows = [{key: value for key, value in row.items() if key not in ("seconds", "codec", "ledger")} for row in report["ab"]["rows"]]
    return rows, [row["ledger"]["held"] for row in report["ab"]["rows"]]


OPTIONS = ["--model", model, "--text", text, "--context", 256, "--tokens", 256, "--page-size", 16, "--no-timing", "--quiet"]
done = run("ab", *OPTIONS, "--recipe", SINK, "--output-dir", work / "ab", "--save-attention", timeout=300)
check(done.returncode == 0, f"ab: {done.stderr[-300:]}")
maps = check_images("ab", "ab", ["dense(f16)", SINK])
check(maps["maps"][0]["tokens"] == 256 and maps["maps"][0]["block_tokens"] == 2, f"ab: {maps['maps'][0]['tokens']} tokens")
report = json.loads((work / "ab/report.json").read_text())
done = run("ab", *OPTIONS, "--recipe", SINK, "--output-dir", work / "without", timeout=300)
check(stable(report) == stable(json.loads((work / "without/report.json").read_text())), "ab: maps change results")
check(not (work / "without/images").exists(), "ab: images without being asked for")

# A report without maps takes old ones away, and nothing else.
(work / "ab/images/mine.txt").write_text("mine")
done = run("ab", *OPTIONS, "--recipe", SINK, "--output-dir", work / "ab", "--no-plots", timeout=300)
check(sorted(path.name for path in (work / "ab/images").iterdir()) == ["mine.txt"], "ab: old images")

done = run("eval", *OPTIONS, "--recipe", SINK, "--output-dir", work / "eval", "--save-attention", "--no-plots", timeout=300)
check(done.returncode == 0, f"eval: {done.stderr[-300:]}")
check(check_images("eval", "eval", ["dense(f16)", SINK], plots=False) == maps, "eval: other numbers than ab")

# Each window of an A/B has a row of its own, and they add up to the row of all.
for row in report["ab"]["rows"]:
    windows = row["windows"]
    scored = sum(window["scored_tokens"] for window in windows)
    check(len(windows) == 2 and scored == row["tokens"], f"windows: {len(windows)} of {scored} tokens")
    for member in ("kl_mean", "top1_agreement"):
        mean = sum(window["scored_tokens"] * window[member] for window in windows) / scored
        check(abs(mean - row[member]) <= 1e-4 * abs(row[member]) + 1e-12, f"windows: {member} {mean} of {row[member]}")
check("Worst windows" in (work / "ab/report.md").read_text() and "Worst windows" in (work / "ab/report.html").read_text(), "the worst windows are not shown")

config = work / "config.json"
STRATEGIES = ["Baseline", "AttentionSink(sink=4,window=16)", "quant(bits=4)"]
config.write_text(json.dumps({"model": str(model), "strategies": STRATEGIES[1:2], "prompts": [text.read_text()[:300], "short"], "max_gen_tokens": 30,
                              "page_size": 8, "chunk": 16, "ignore_eos": True, "output_dir": str(work / "run")}))
done = run("run", "--config", config, "--save-attention", "--dashboard", "--quiet", timeout=300)
check(done.returncode == 0, f"run: {done.stderr[-300:]}")
first = check_images("run", "run", STRATEGIES[:2])
rows = [json.loads(line) for line in (work / "run/results.jsonl").read_text().splitlines()]
check(all(one["tokens"] == rows[0]["prompt_tokens"] + rows[0]["generated_tokens"] - 1 for one in first["maps"]), "run: the first sample's tokens")
# All trials are there: maps come all the same, and are the same; rows stay.
shutil.rmtree(work / "run/images")
before = (work / "run/results.jsonl").read_bytes()
done = run("run", "--config", config, "--save-attention", "--quiet", timeout=300)
check(check_images("resumed", "run", STRATEGIES[:2]) == first and (work / "run/results.jsonl").read_bytes() == before, "resumed: other numbers")
expect_refusal("a shard", "run", "--config", config, "--save-attention", "--shard", "1/2", "--quiet", mentions=["--save-attention"])
expect_refusal("nothing saved", "run", "--config", config, "--save-attention", "--no-save", "--quiet", mentions=["--save-attention"])

shutil.rmtree(work)
finish()
