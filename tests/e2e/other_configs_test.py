"""Configurations and command lines of other programs that compare cache strategies, as their users type them."""
import json
import os
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

from harness import SOURCE, check, expect_refusal, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-configs-"))
model = random_model(work / "model", "--layers", 20, "--positions", 512)
small = random_model(work / "small", "--layers", 2, "--positions", 2048)
for path in (SOURCE / "tests/fixtures/experiments").iterdir():
    shutil.copy(path, work)
os.chdir(work)


def rows_of(folder):
    return [json.loads(line) for line in (work / folder / "results.jsonl").read_text().splitlines()]


def accept(label, *arguments):
    done = run("run", *arguments, timeout=300)
    check(done.returncode == 0, f"{label}: {done.stderr[-400:]}")
    return done


# Seven strategies on dialogues, every option of the first program.
done = accept("strategies", "--config", "strategies.json", "--model", small, "--cache_dir", "cache", "--length", 30, "--limit", 1, "--generate_dashboard", "--debug", "--profile")
rows = rows_of("benchmark_results")
check([row["strategy"] for row in rows] == json.loads((work / "strategies.json").read_text())["strategies"], f"strategies: {[row['strategy'] for row in rows]}")
check(all(len(row["turns"]) == 2 and row["generated_tokens"] == 60 for row in rows), "strategies: both turns")
for name in ("dashboard.html", "comparison.md", "run.log", "profile.csv", "experiment_summary.json"):
    check((work / "benchmark_results" / name).exists(), f"strategies: no {name}")
check("plans" in (work / "benchmark_results/run.log").read_text(), "strategies: no decisions in run.log")

# The framework's three, by file, by names alone, and with a model and a length alone.
done = accept("framework", "--config", "framework.yaml", "--model", model, "--length", 4, "--limit", 1, "--no-plots")
check([row["strategy"].split("(")[0] for row in rows_of("results")] == ["baseline", "attention_sink", "minicache"], "framework: strategies")
done = accept("names", "--experiments", "baseline", "attention_sink", "--model", model, "--length", 4, "--results-dir", "names", "--no-plots")
check([row["strategy"].split("(")[0] for row in rows_of("names")] == ["Baseline", "AttentionSink"], "names: strategies")
done = accept("model and length", "--model", model, "--length", 4, "--no-save", "--no-plots")
check("minicache" in done.stdout and "attention-sink-minicache" in done.stderr and len(rows_of("results")) == 3, f"model and length: {done.stdout}{done.stderr}")

# A list of experiments with prompts of their own.
done = accept("array", "--experiments", "array.json", "--model", small, "--length", 5, "--output-dir", "array", "--no-plots")
check(len(rows_of("array")) == 2 and all(row["experiment"] == "two_prompts" for row in rows_of("array")), "array: rows")

# Modes: one is there, two are refused by name.
expect_refusal("modes", "run", "--config", "modes.yaml", "--model", small, mentions=["modes.yaml:8", "experiments[1].mode", "reactive", "does not exist yet"])
done = accept("baseline", "--config", "modes.yaml", "--only", "baseline", "--model", small, "--output", "my_results", "--length", 3, "--limit", 1, "--no-plots")
check(len(rows_of("my_results")) == 6 and {row["context_length"] for row in rows_of("my_results")} == {100, 200}, f"baseline: {len(rows_of('my_results'))} rows")
done = accept("create", "--create-config")
check((work / "general.yaml").exists(), "create: no file")

shutil.rmtree(work)
finish()
