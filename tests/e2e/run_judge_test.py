"""`kvanalyze run --judge`: the answers of a run are scored once, whatever ends it."""
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

from harness import check, expect_refusal, finish, random_model, run
from judge_server import Server, chat

KEY = "sk-very-secret-0123456789"
GOOD = chat('{"score": 8, "reason": "Does the task."}')
work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-run-judge-"))
model = random_model(work / "model", "--layers", 2, "--positions", 256)
config = work / "config.json"
config.write_text(json.dumps({"model": str(model), "strategies": ["Random(keep=0.5)", "quant(bits=4)"], "prompts": ["One lake.", "Two lakes."],
                              "max_gen_tokens": 6, "page_size": 8, "ignore_eos": True}))
TRIALS = 6


def environment(key=KEY, **more):
    found = {**os.environ, "NO_PROXY": "*", "no_proxy": "*", **more}
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        found.pop(name, None)
    return {**found, **({"OPENAI_API_KEY": key} if key else {})}


def arguments(folder, server, *options, path=""):
    return ["run", "--config", config, "--output-dir", work / folder, "--no-plots", "--judge", server.url + path, "--judge-model", "grader-1",
            "--judge-requests-per-minute", 0, *options]


def rows_of(folder):
    return [json.loads(line) for line in (work / folder / "results.jsonl").read_text().splitlines()]


def questions(rows):
    """How many of them differ: answers that are alike are asked for once."""
    return len({json.dumps([[turn["prompt"], turn["text"]] for turn in row["turns"]]) for row in rows})


def without(row, *members):
    return {key: value for key, value in row.items() if key not in members}


# Trials, then scores; the summary says who gave them.
server = Server([GOOD])
done = run(*arguments("plain", server), env=environment())
check(done.returncode == 0, f"plain: {done.stderr[-300:]}")
rows = rows_of("plain")
ASKED = questions(rows)
check(ASKED >= 4 and len(server.seen) == ASKED, f"plain: {len(server.seen)} requests for {ASKED} answers")
check([row["judge"]["score"] for row in rows] == [8] * TRIALS and all(row["judge"]["model"] == "grader-1" for row in rows), "plain: scores in the rows")
summary = json.loads((work / "plain/experiment_summary.json").read_text())
check(summary["experiment_summary"]["judges"] == [{"model": "grader-1", "rubric": rows[0]["judge"]["rubric"]}], f"judges: {summary['experiment_summary'].get('judges')}")
check(summary["comparative_analysis"]["quant(bits=4)"]["judge_score"] == 8, "plain: the mean score")
check("judge" in done.stdout and "8.00" in done.stdout, f"plain: {done.stdout}")
check("6 trials judged by grader-1" in (work / "plain/run.log").read_text(), "plain: run.log")
everything = b"".join(path.read_bytes() for path in (work / "plain").rglob("*") if path.is_file())
check(KEY.encode() not in everything and KEY not in done.stdout + done.stderr, "the key was written")

# Again: nothing is sent, nothing changes; without the judge its scores stay.
before = (work / "plain/results.jsonl").read_bytes()
done = run(*arguments("plain", server), env=environment())
check(done.returncode == 0 and len(server.seen) == ASKED, f"again: {len(server.seen)} requests, {done.stderr[-300:]}")
check((work / "plain/results.jsonl").read_bytes() == before, "again: rows changed")
done = run("run", "--config", config, "--output-dir", work / "plain", "--no-plots")
check(done.returncode == 0 and (work / "plain/results.jsonl").read_bytes() == before, "without: rows changed")
check("8.00" in done.stdout, "without: the scores are shown")

# A judge that gives up in the middle: trials and summary are there, the exit code says so, and only the rest is asked for later.
failing = Server([GOOD, GOOD, (401, {}, "no")])
done = run(*arguments("broken", failing), env=environment())
check(done.returncode == 1 and "the judge refuses: HTTP status 401" in done.stderr, f"broken: {done.returncode} {done.stderr[-300:]}")
check(len(rows_of("broken")) == TRIALS and (work / "broken/experiment_summary.json").exists(), "broken: results are missing")
check(len(failing.seen) == 3, f"broken: {len(failing.seen)} requests")
failing.replies = [GOOD]
failing.seen.clear()
done = run(*arguments("broken", failing), env=environment())
check(done.returncode == 0 and len(failing.seen) == ASKED - 2, f"resumed: {len(failing.seen)} requests, {done.stderr[-300:]}")
check([row["judge"]["score"] for row in rows_of("broken")] == [8] * TRIALS, "resumed: scores")
check([without(row, "started", "timing", "process_peak_bytes") for row in rows_of("broken")]
      == [without(row, "started", "timing", "process_peak_bytes") for row in rows], "resumed: rows differ from those of a judge that answered")

# More trials in a folder: those that have a score keep it.
config.write_text(json.dumps({**json.loads(config.read_text()), "prompts": ["One lake.", "Two lakes.", "Three lakes."]}))
server.seen.clear()
done = run(*arguments("plain", server), env=environment())
check(done.returncode == 0 and len(server.seen) == questions(rows_of("plain")) - ASKED > 0, f"more: {len(server.seen)} requests, {done.stderr[-300:]}")

# Azure's form under the name that its users know.
azure = Server([GOOD])
done = run("run", "--config", config, "--output-dir", work / "azure", "--no-plots", "--limit", 1, "--eval_azure",
           azure.url + "/openai/deployments/four/chat/completions?api-version=2024-06-01", "--judge-model", "four", "--judge-requests-per-minute", 0,
           env=environment(key="", AZURE_OPENAI_API_KEY="") | {"AZURE_OPENAI_API_KEY": KEY})
check(done.returncode == 0, f"azure: {done.stderr[-300:]}")
check(azure.seen and azure.seen[0][1].get("api-key") == KEY and azure.seen[0][0].startswith("/openai/deployments/four/"), "azure: the request")

# Mistakes are named before anything runs.
NEVER = ["run", "--config", config, "--output-dir", work / "never", "--quiet"]
expect_refusal("no url", *NEVER, "--eval_azure", "--judge-model", "x", mentions=["--judge", "URL", "AZURE_OPENAI_API_KEY"])
expect_refusal("no model", *NEVER, "--judge", server.url, mentions=["--judge-model"])
expect_refusal("no judge", *NEVER, "--judge-model", "x", mentions=["--judge URL"])
expect_refusal("bad url", *NEVER, "--judge", "localhost:80", "--judge-model", "x", mentions=["--judge"])
expect_refusal("a shard", *NEVER, "--judge", server.url, "--judge-model", "x", "--shard", "1/2", mentions=["--shard"])
expect_refusal("nothing saved", *NEVER, "--judge", server.url, "--judge-model", "x", "--no-save", mentions=["--no-save"])
check(not (work / "never").exists(), "a mistake left something behind")

shutil.rmtree(work)
finish()
