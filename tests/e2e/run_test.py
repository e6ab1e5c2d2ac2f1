"""`kvanalyze run` end to end on small random models: all trials, resumed after kills, in shards, and mistakes."""
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

try:
    import numpy  # noqa: F401
    import safetensors  # noqa: F401
except ImportError:
    print("numpy and safetensors are not installed; skipped")
    sys.exit(77)

from harness import PROGRAM, check, expect_refusal, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-run-"))
model = random_model(work / "model", "--layers", 3, "--positions", 512)
other = random_model(work / "other", "--layers", 2, "--positions", 512, "--seed", 3)
DIALOGUES = work / "dialogues.jsonl"
DIALOGUES.write_text("".join(json.dumps({"question_id": i, "turns": [f"First question number {i}, a longer one.", "And why?"]}) + "\n"
                             for i in range(2)))
STRATEGIES = ["Baseline", "evict(keep=0.5,sinks=2,window=4)", "quant(bits=4)", "merge(keep=0.5,sinks=0,window=0)@tokens>40"]
CONFIG = {
    "output_dir": str(work / "whole"),
    "max_gen_tokens": 12, "page_size": 8, "chunk": 16, "kv_threshold": 20,
    "experiments": [
        {"name": "dialogues", "models": [str(model), str(other)], "strategies": STRATEGIES,
         "dataset": {"local_path": "dialogues.jsonl", "prompt_field": "turns"}, "ignore_eos": True},
        {"name": "lengths", "model": str(model), "strategies": STRATEGIES[1:3], "prompts": ["Once upon a time there was a page."],
         "context_lengths": [24, 64], "seeds": [1, 2], "num_runs": 2, "temperature": 30},
        {"name": "passkeys", "model": str(model), "strategies": STRATEGIES[2:3], "context_lengths": 300,
         "passkey": {"depths": [0.5], "trials": 2}},
    ],
}
TRIALS = 2 * 2 * 4 + 2 * 2 * 2 * 3 + 2 * 2


def write_config(name, config):
    path = work / name
    path.write_text(json.dumps(config, indent=1))
    return path


def rows_of(folder, name="results.jsonl"):
    path = work / folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without_times(row):
    return {key: value for key, value in row.items() if key not in ("started", "timing", "process_peak_bytes")}


config = write_config("config.json", CONFIG)
began = time.monotonic()
done = run("run", "--config", config, "--profile", "--debug", timeout=600)
seconds_per_trial = (time.monotonic() - began) / TRIALS
check(done.returncode == 0, f"run: {done.stderr[-600:]}")
rows = rows_of("whole")
check(len(rows) == TRIALS, f"{len(rows)} rows of {TRIALS} trials")
check(len({row["trial"] for row in rows}) == TRIALS, "every trial has an id of its own")
check(all(row["status"] == "ok" for row in rows), f"failed: {[row.get('error') for row in rows if row['status'] != 'ok'][:3]}")
FIELDS = ("trial experiment mode model strategy recipe prompt_set sample context_length repeat seed device batch_size page_size "
          "started status prompt_tokens generated_tokens turns timing steps layers ledger process_peak_bytes quality counters remarks").split()
TIMING = "prefill_s first_token_s generation_s total_s codec_s observe_s token_s".split()
QUALITY = "perplexity perplexity_base kl_mean kl_max top1_agreement rouge_l edit_distance scored_tokens".split()
for row in rows:
    name = f"{row['strategy']} on {row['sample']}"
    check([field for field in FIELDS if field not in row] == [], f"{name}: fields {sorted(set(FIELDS) - set(row))} are missing")
    check(sorted(row["timing"]) == sorted(TIMING) and sorted(row["quality"]) == sorted(QUALITY), f"{name}: timing and quality")
    turns = len(row["turns"])
    answered = [turn for turn in row["turns"] if turn["tokens"] > 0]
    check(row["generated_tokens"] == sum(turn["tokens"] for turn in row["turns"]), f"{name}: generated tokens")
    check(len(row["timing"]["token_s"]) == row["generated_tokens"] - len(answered), f"{name}: a time for each decoding step")
    steps = row["steps"]
    check(len(steps["tokens"]) == len(steps["bytes"]) == len(steps["cache_tokens"]) > 0, f"{name}: steps")
    check(all(a < b for a, b in zip(steps["tokens"], steps["tokens"][1:])), f"{name}: tokens grow with every step")
    check(all(kept <= seen for kept, seen in zip(steps["cache_tokens"], steps["tokens"])), f"{name}: kept tokens")
    # The last token of an answer is chosen, but fed with the next turn's prompt only.
    check(steps["tokens"][-1] == row["prompt_tokens"] + row["generated_tokens"] - 1, f"{name}: all tokens were seen")
    ledger = row["ledger"]
    check(steps["bytes"][-1] == sum(ledger[part] for part in ("payload", "scales", "side", "tables", "slack")),
          f"{name}: the ledger at the end")
    check(ledger["peak"] >= max(steps["bytes"]), f"{name}: the peak")
    check(abs(sum(row["layers"]["bytes"]) - ledger["payload"] - ledger["scales"]) < 1, f"{name}: bytes of the layers")
    if row["recipe"] == "dense(f16)":
        quality = row["quality"]
        check(quality["kl_mean"] == quality["kl_max"] == quality["edit_distance"] == 0 and quality["rouge_l"] == 1
              and quality["top1_agreement"] == 1 and quality["perplexity"] == quality["perplexity_base"], f"{name}: {quality}")
        check(steps["cache_tokens"] == steps["tokens"], f"{name}: Baseline keeps every token")
    else:
        check("@tokens>" in row["recipe"], f"{name}: the threshold in {row['recipe']}")

groups = {}
for row in rows:
    key = (row["experiment"], row["model"]["identity"], row["prompt_set"], row["sample"], row["context_length"], row["repeat"], row["seed"])
    groups.setdefault(key, {})[row["strategy"]] = row
for key, group in groups.items():
    base = group["Baseline"]
    for strategy, row in group.items():
        check(row["quality"]["scored_tokens"] == base["generated_tokens"], f"{strategy}: Baseline's answers were scored")
        check(row["prompt_tokens"] == base["prompt_tokens"], f"{strategy}: the same prompt")
        if "evict" in strategy and row["steps"]["tokens"][-1] > 40:
            check(row["counters"]["evict.dropped_tokens"] > 0, f"{strategy}: dropped tokens")
            check(row["steps"]["cache_tokens"][-1] < row["steps"]["tokens"][-1], f"{strategy}: fewer tokens are read")
            check(row["quality"]["kl_mean"] > 0, f"{strategy}: dropping costs")
    check(group["quant(bits=4)"]["quality"]["kl_mean"] > 0, "quantizing costs")
dialogue = next(row for row in rows if row["experiment"] == "dialogues")
check([turn["prompt"] for turn in dialogue["turns"]] == ["First question number 0, a longer one.", "And why?"], "both turns")
check([turn["tokens"] for turn in dialogue["turns"]] == [12, 12], "both are answered")
lengths = [row for row in rows if row["experiment"] == "lengths"]
check({row["prompt_tokens"] for row in lengths} == {24, 64}, "prompts of the lengths that were asked for")
check(any("repeated" in remark for row in lengths for remark in row["remarks"]), "a repeated prompt is told")
same = [row for row in lengths if row["strategy"] == "Baseline" and row["context_length"] == 64]
texts = {(row["seed"], row["repeat"]): row["turns"][0]["ids"] for row in same}
check(texts[1, 0] == texts[1, 1] and texts[1, 0] != texts[2, 0], "a seed decides what is sampled")
keys = [row for row in rows if row["experiment"] == "passkeys"]
check(all(len(row["passkey"]["key"]) == 5 and row["passkey"]["key"] in row["turns"][0]["prompt"] for row in keys), "passkeys")

# What is made of the rows.
summary = json.loads((work / "whole/experiment_summary.json").read_text())
check(sorted(summary) == ["comparative_analysis", "experiment_summary", "mode_summaries"], f"{sorted(summary)}")
check(summary["experiment_summary"]["total_experiments"] == summary["experiment_summary"]["successful_experiments"] == TRIALS, "counts")
check(list(summary["comparative_analysis"]) == STRATEGIES[1:], f"{list(summary['comparative_analysis'])}")
files = sorted(path.name.rsplit("_", 2)[0] for path in (work / "whole").glob("*_*_*.json"))
check(files == ["Baseline", "evict", "merge", "quant"], f"files of strategies: {files}")
quant = json.loads(next((work / "whole").glob("quant_*.json")).read_text())
of_quant = [row for row in rows if row["strategy"] == "quant(bits=4)"]
check(len(quant["trials"]) == quant["summary"]["trials"] == len(of_quant), "trials of a strategy")
tokens = sum(row["quality"]["scored_tokens"] for row in of_quant)
mean = sum(row["quality"]["kl_mean"] * row["quality"]["scored_tokens"] for row in of_quant) / tokens
check(abs(quant["summary"]["kl_mean"] / mean - 1) < 1e-4, f"mean KL {quant['summary']['kl_mean']} and {mean}")
log = (work / "whole/run.log").read_text()
check(log.count(": ok\n") == TRIALS and "evict.dropped_tokens +" in log, "run.log has trials and decisions")
profile = (work / "whole/profile.csv").read_text().splitlines()
check(len(profile) == 1 + sum(len(row["steps"]["tokens"]) for row in rows), "a line of the profile for each step")
if shutil.which("gnuplot"):
    plots = sorted(path.name for path in (work / "whole/plots").iterdir())
    check(plots == ["combined_analysis.png", "performance_bars.png", "profile.png", "timing_comparison.png", "vram_comparison.png"], f"{plots}")
else:
    check("gnuplot" in done.stderr, "a missing gnuplot is told")

# Again: nothing is left to do, and nothing changes.
before = (work / "whole/results.jsonl").read_bytes()
done = run("run", "--config", config, "--no-plots")
check(done.returncode == 0 and f"{TRIALS} of {TRIALS} trials are finished" in done.stderr, f"again: {done.stderr}")
check((work / "whole/results.jsonl").read_bytes() == before, "a finished run changed its rows")

# Killed at random moments, with what a kill can leave at the end of the file, until it is through.
random.seed(11)
TORN = [b'{"trial": "0123', b"\x00\x00\x00", b'{"trial": 5}\n']
expected = {row["trial"]: without_times(row) for row in rows}
kills = attempt = 0
while kills < 12 and attempt < 20:
    folder = f"killed-{attempt}"
    attempt += 1
    left = work / folder / "results.jsonl"
    for round in range(100):
        process = subprocess.Popen([str(PROGRAM), "run", "--config", str(config), "--output-dir", str(work / folder), "--no-plots", "--quiet"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        # After some more rows and a moment; at times before the first.
        wanted = (left.read_bytes().count(b"\n") if left.exists() else 0) + random.randint(0, 4)
        deadline = time.monotonic() + 300
        while process.poll() is None and (left.read_bytes().count(b"\n") if left.exists() else 0) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(random.uniform(0, seconds_per_trial))
        if process.poll() is None:
            process.kill()
            kills += 1
        _, stderr = process.communicate()
        if process.returncode == 0:
            break
        check(process.returncode == -9, f"killed run ended with {process.returncode}: {stderr[-300:]}")
        # One torn end at a time: a run that was killed before it looked at the file has left the last one there.
        if left.exists() and not any(left.read_bytes().endswith(torn) for torn in TORN) and random.random() < 0.5:
            with open(left, "ab") as file:
                file.write(random.choice(TORN))
    again = rows_of(folder)
    check(len(again) == TRIALS, f"{folder}: {len(again)} rows after {kills} kills")
    check({row["trial"]: without_times(row) for row in again} == expected, f"{folder}: rows differ from the run that was never killed")
check(kills >= 12, f"only {kills} kills in {attempt} attempts: the test needs a longer run")

# Shards, at the same time in one folder, and joined.
shards = [subprocess.Popen([str(PROGRAM), "run", "--config", str(config), "--output-dir", str(work / "shards"), "--shard", f"{i}/3", "--quiet"])
          for i in (1, 2, 3)]
check([shard.wait(timeout=600) for shard in shards] == [0, 0, 0], "shards")
parts = [len(rows_of("shards", f"results.shard-{i}-of-3.jsonl")) for i in (1, 2, 3)]
check(sum(parts) == TRIALS and min(parts) > 0, f"shards of {parts} rows")
done = run("run", "--config", config, "--output-dir", work / "shards", "--no-plots", "--shard", "1/1")
check(done.returncode == 0 and f"{TRIALS} of {TRIALS} trials are finished" in done.stderr, f"joined: {done.stderr}")
check({row["trial"]: without_times(row) for row in rows_of("shards")} == expected, "joined shards differ from one run")
check((work / "shards/experiment_summary.json").exists(), "joined shards have a summary")

# Two runs in one folder.
large = random_model(work / "large", "--layers", 8, "--heads", 12, "--kv-heads", 12, "--head-dim", 64)
slow = write_config("slow.json", {"model": str(large), "prompts": ["slow"], "max_gen_tokens": 400, "ignore_eos": True, "output_dir": str(work / "locked")})
first = subprocess.Popen([str(PROGRAM), "run", "--config", str(slow), "--quiet"])
deadline = time.monotonic() + 30
while not (work / "locked/run.log").exists() and time.monotonic() < deadline:
    time.sleep(0.05)
first.send_signal(signal.SIGSTOP)  # It holds the folder however fast the machine is.
check(first.poll() is None, "the first run ended before the second began")
expect_refusal("a second run", "run", "--config", slow, "--quiet", mentions=["another", "locked"])
expect_refusal("a shard beside it", "run", "--config", slow, "--shard", "1/2", "--quiet", mentions=["another"])
first.kill()
first.wait()

# Shapes and options of the described systems.
os.chdir(work)
array = write_config("array.json", [{"name": "custom_experiment", "model": str(model), "prompts": ["One.", "Two."], "max_tokens": 5,
                                     "temperature": 0.7, "max_model_len": 64}])
done = run("run", "--experiments", array, "--results-dir", work / "array", "--no-plots")
check(done.returncode == 0 and len(rows_of("array")) == 2, f"an array: {done.stderr}")
modes = work / "modes.yaml"
modes.write_text(f"experiments:\n  - mode: baseline\n    model_name: \"{model}\"\n    context_lengths: [30, 60]\n    num_runs: 2\n"
                 "    max_new_tokens: 5\n    limit: 1\n")
done = run("run", "--config", modes, "--output-dir", "modes", "--no-plots", "--quiet")
check(done.returncode == 0 and len(rows_of("modes")) == 4, f"modes: {done.stderr}")
check({row["mode"] for row in rows_of("modes")} == {"baseline"}, "the mode in the rows")
done = run("run", "--config", config, "--only", "evict", "--length", 3, "--limit", 1, "--no-save")
check(done.returncode == 0 and "evict" in done.stdout and "quant" not in done.stdout, f"only: {done.stdout}{done.stderr}")
check(not (work / "results").exists(), "--no-save wrote something")
done = run("run", "--create-config", "quick-test")
check(done.returncode == 0 and (work / "quick-test.yaml").exists(), f"create: {done.stderr}")
expect_refusal("over a file", "run", "--create-config", "quick-test", mentions=["quick-test.yaml"])
expect_refusal("an unknown one", "run", "--create-config", "quik-test", mentions=["did you mean quick-test?"])
done = run("run", "--quick-test", "--model", model, "--output-dir", "quick", "--no-plots", "--quiet", "--length", 4, "--limit", 1)
check(done.returncode == 0 and len(rows_of("quick")) == 8, f"quick test: {done.stderr}")

# A trial that fails is a row, and the others run: a codebook has nothing to learn from where a page is longer than the
# calibration text's sequences.
short = random_model(work / "short", "--layers", 2, "--positions", 48)
failing = write_config("failing.json", {"model": str(short), "strategies": ["nuq", "quant"], "prompts": ["x"], "page_size": 64,
                                        "max_gen_tokens": 3, "output_dir": str(work / "failing")})
expect_refusal("a failed trial", "run", "--config", failing, "--no-plots", "--quiet", mentions=["1 of 3 trials failed", "run.log"])
check([(row["status"], "error" in row) for row in rows_of("failing")] == [("ok", False), ("failed", True), ("ok", False)], "rows of failures")
check("page" in (work / "failing/run.log").read_text(), "run.log says why")

# Mistakes: one line that names file, line and field, and nothing is written.
REFUSED = [
    ("no file", None, ["nowhere.yaml"]),
    ("broken", "a: [1, 2\n", ["bad.yaml:"]),
    ("field", "model: x\nlimt: 1\n", ["bad.yaml:2", "limt", "limit"]),
    ("strategy", f"model: {model}\nstrategies:\n  - Baseline\n  - Rendom(keep=0.5)\n", ["bad.yaml:4", "strategies[1]", "Rendom"]),
    ("layers", f"model: {model}\nstrategies:\n  - \"layers(7): quant\"\n", ["bad.yaml:3", "strategies[0]", "0 to 2"]),
    ("parameter", f"model: {model}\nstrategies: [\"minicache(start=7)\"]\n", ["bad.yaml:2", "strategies[0]", "below 3"]),
    ("mode", f"model: {model}\nmode: predictive\n", ["bad.yaml:2", "predictive", "does not exist yet"]),
    ("model", "model: /no/such/model\noffline: true\n", ["bad.yaml:1", "model"]),
    ("data", f"model: {model}\ndataset: {{local_path: none.jsonl}}\n", ["bad.yaml:2", "local_path", "none.jsonl"]),
    ("length", f"model: {model}\ncontext_lengths: [20, 600]\n", ["bad.yaml", "512"]),
    ("member", f"model: {model}\ndataset: {{local_path: dialogues.jsonl, prompt_field: nothing}}\n", ["bad.yaml:2", "nothing"]),
]
for label, text, mentions in REFUSED:
    path = work / ("bad.yaml" if text else "nowhere.yaml")
    if text:
        path.write_text(text)
    expect_refusal(label, "run", "--config", path, "--output-dir", work / "never", "--quiet", mentions=mentions)
check(not (work / "never").exists(), "a mistake left something behind")
expect_refusal("no config", "run", mentions=["--config"])
expect_refusal("shard", "run", "--config", config, "--shard", "4/3", mentions=["--shard"])
expect_refusal("only", "run", "--config", config, "--only", "nothing", mentions=["--only", "nothing"])
damaged = work / "whole/results.jsonl"
damaged.write_bytes(b"no row\n" + before)
expect_refusal("damaged rows", "run", "--config", config, "--quiet", mentions=["results.jsonl:1"])
check(damaged.read_bytes() == b"no row\n" + before, "damaged rows were changed")

shutil.rmtree(work)
finish()
