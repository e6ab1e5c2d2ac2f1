"""`kvanalyze judge` against a server of the test's own: what it sends, how it retries, and what it refuses."""
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "reports"))
import example_trials
from harness import check, expect_refusal, finish, run
from judge_server import Server, chat

KEY = "sk-very-secret-0123456789"
work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-judge-"))
GOOD = chat('{"score": 8, "reason": "Does the task."}')


def folder(name, trials=3):
    made = example_trials.write(work / name, example_trials.rows(samples=1)[:trials])
    return made


def judge(place, server, *options, key=KEY, path="", rate="0", **more):
    environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        environment.pop(name, None)
    if key:
        environment["OPENAI_API_KEY"] = key
    environment.update(more)
    arguments = ["judge", place, "--judge", server.url + path, "--judge-model", "grader-1", "--requests-per-minute", rate, *options]
    return arguments, environment


def accept(label, place, server, *options, **more):
    arguments, environment = judge(place, server, *options, **more)
    done = run(*arguments, env=environment)
    check(done.returncode == 0, f"{label}: exit code {done.returncode}: {done.stderr[-300:]}")
    check(KEY not in done.stdout + done.stderr, f"{label}: the key was printed")
    return done


def refuse(label, place, server, *options, mentions=(), seconds=20, **more):
    before = (place / "results.jsonl").read_bytes()
    arguments, environment = judge(place, server, *options, **more)
    done = expect_refusal(label, *arguments, mentions=mentions, seconds=seconds, env=environment)
    check(KEY not in done.stdout + done.stderr, f"{label}: the key was printed")
    check((place / "results.jsonl").read_bytes() == before, f"{label}: results.jsonl changed")
    return done


def rows_of(place):
    return [json.loads(line) for line in (place / "results.jsonl").read_text().splitlines()]


# What is sent and what comes of it.
place, server = folder("plain"), Server([GOOD])
before = rows_of(place)
done = accept("plain", place, server)
check("3 trials judged by grader-1" in done.stdout, f"plain: {done.stdout}")
check(len(server.seen) == 3, f"plain: {len(server.seen)} requests")
path, headers, body = server.seen[0]
check(path == "/v1/chat/completions", f"plain: path {path}")
check(headers.get("Authorization") == f"Bearer {KEY}", "plain: no key was sent")
check(body["temperature"] == 0 and body["model"] == "grader-1", f"plain: {body}")
task = json.loads(body["messages"][1]["content"])
check(before[0]["turns"][0]["text"] in task["answer"] and before[0]["turns"][1]["text"] in task["answer"], "plain: an answer is missing")
check(before[0]["turns"][0]["prompt"] in task["task"] and before[0]["turns"][1]["prompt"] in task["task"], "plain: a prompt is missing")
after = rows_of(place)
for old, new in zip(before, after):
    found = new.pop("judge")
    check((found["model"], found["score"], found["reason"]) == ("grader-1", 8, "Does the task."), f"plain: {found}")
    check(found["rubric"].startswith("1 (xxh3:"), f"plain: rubric {found['rubric']}")
    check(old == new, "plain: another field of a row changed")
everything = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
check(KEY.encode() not in everything, "plain: the key is in a file")

# Judged rows are left as they are; without them the cache answers.
accept("again", place, server)
check(len(server.seen) == 3, "again: judged rows were asked again")
example_trials.write(place, before)
accept("cached", place, server)
check(len(server.seen) == 3 and all("judge" in row for row in rows_of(place)), "cached: asked again")
example_trials.write(place, before)
accept("other cache", place, server, "--judge-cache", work / "other")
check(len(server.seen) == 6, "other cache: not asked")

# Forms of the URL.
for path, wanted in (("/v1", "/v1/chat/completions"), ("/v1/", "/v1/chat/completions"), ("/api/v1/chat/completions", "/api/v1/chat/completions")):
    server = Server([GOOD])
    accept(path, folder("url" + path.replace("/", "-"), 1), server, path=path)
    check(server.seen[0][0] == wanted, f"{path}: {server.seen[0][0]}")
server = Server([GOOD])
azure = "/openai/deployments/grader/chat/completions?api-version=2024-06-01"
accept("azure", folder("azure", 1), server, path=azure, key=None, AZURE_OPENAI_API_KEY=KEY)
check(server.seen[0][0] == azure and server.seen[0][1].get("api-key") == KEY and "Authorization" not in server.seen[0][1], f"azure: {server.seen[0][:2]}")
server = Server([GOOD])
accept("no key", folder("no-key", 1), server, key=None)
check("Authorization" not in server.seen[0][1], "no key: one was sent")

# Retries.
server = Server([(429, {"Retry-After": "2"}, "slow down"), (503, {}, ""), chat("no JSON here"), GOOD])
accept("429, 503, no score, score", folder("retry", 1), server)
check(len(server.seen) == 4, f"retry: {len(server.seen)} requests")
check(server.times[1] - server.times[0] >= 1.9, f"Retry-After: waited {server.times[1] - server.times[0]:.2f} s")
check(server.times[2] - server.times[1] >= 1.9, f"back-off: waited {server.times[2] - server.times[1]:.2f} s")
server = Server([(500, {}, "oops")])
refuse("500 for ever", folder("broken", 1), server, "--attempts", "2", mentions=("no score in 2 attempts", "500"))
check(len(server.seen) == 2, f"500 for ever: {len(server.seen)} requests")
server = Server([(401, {}, f"bad key {KEY}")])
refuse("401", folder("refused", 1), server, mentions=("refuses", "401"))
check(len(server.seen) == 1, "401: asked again")
elsewhere = Server([GOOD])
server = Server([(307, {"Location": elsewhere.url + "/v1/chat/completions"}, "")])
refuse("redirect", folder("redirect", 1), server, mentions=("307",))
check(not elsewhere.seen, "redirect: the key went elsewhere")

# What is no answer.
for label, reply, mention in (
        ("not JSON", (200, {}, "<html>"), "no chat completion"), ("empty", (200, {}, ""), "no chat completion"), ("no choices", (200, {}, '{"choices": []}'), "no chat completion"),
        ("deep", (200, {}, "[" * 100000), "too deep"), ("score 11", chat('{"score": 11}'), "a score of 11"),
        ("binary", (200, {}, bytes(range(256)) * 50), "no chat completion"), ("huge", (200, {}, b"x" * (3 << 20)), "1048576 bytes")):
    refuse(label, folder(label.replace(" ", "-"), 1), Server([reply]), "--attempts", "1", mentions=(mention,))


def hang(handler):
    time.sleep(30)


refuse("hang", folder("hang", 1), Server([hang]), "--attempts", "1", "--timeout", "1", mentions=("imeout",))
closed = Server([GOOD])
closed.shutdown()
closed.server_close()
refuse("nobody there", folder("closed", 1), closed, "--attempts", "1", mentions=("no score",))

# A reply that repeats the key, and what was answered before a failure.
server = Server([chat(json.dumps({"score": 5, "reason": f"your key is {KEY}"}))])
place = folder("echo", 1)
accept("echo", place, server)
check(KEY not in (place / "results.jsonl").read_text(), "echo: the key came into the results")
server, place = Server([GOOD, (500, {}, "")]), folder("part")
refuse("a failure in between", place, server, "--attempts", "1", mentions=("500",))
server.replies = [GOOD]
accept("the rest", place, server)
check(len(server.seen) == 4, f"the rest: {len(server.seen)} requests, the first answer was not kept")

# The rate, and a folder that is none.
server = Server([GOOD])
accept("rate", folder("rate", 3), server, rate="120")
check(server.times[2] - server.times[0] >= 0.95, f"rate: three requests in {server.times[2] - server.times[0]:.2f} s")
arguments, environment = judge(work / "nowhere", server)
expect_refusal("no folder", *arguments, mentions=("results.jsonl",), env=environment)
shutil.rmtree(work, ignore_errors=True)
finish()
