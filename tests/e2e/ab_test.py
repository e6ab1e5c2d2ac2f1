"""`kvanalyze eval`, `ab` and `compare` end to end on a small random model."""
import json
import math
import pathlib
import shutil
import sys
import tempfile

try:
    import numpy
except ImportError:
    print("numpy is not installed; skipped")
    sys.exit(77)

from harness import SOURCE, check, expect_refusal, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-ab-"))
model = random_model(work / "model", "--layers", 4, "--positions", 256)
random = numpy.random.default_rng(5)
words = ["page", "cache", "of", "keys", "and", "values", "is", "small", "again", "the", "same", "model"]
text = work / "text.txt"
text.write_text(" ".join(random.choice(words, 260)) + "\n")
settings = ["--model", model, "--text", text, "--context", 256, "--chunk", 16, "--page-size", 16]
RECIPES = ["dense(f32)", "dense(bf16)", "layershare(start=0.5,every=2)", "dedup(exact)"]
FIELDS = ("recipe tokens chunk_tokens page_size bytes_held bits_per_value compression perplexity perplexity_base "
          "kl_mean kl_median kl_p99 kl_max top1_agreement effect decode_tokens_per_s").split()


def with_recipes(*recipes):
    return [word for recipe in recipes for word in ("--recipe", recipe)]


def report_of(folder):
    return json.loads((work / folder / "report.json").read_text())


def row_of(report, recipe):
    return next(row for row in report["ab"]["rows"] if row["recipe"] == recipe)


def close(a, b, relative=1e-5):
    return math.isclose(a, b, rel_tol=relative, abs_tol=1e-12)


done = run("ab", *settings, *with_recipes(*RECIPES, "Baseline"), "--timing-runs", 1, "--output-dir", work / "ab")
check(done.returncode == 0, f"ab: {done.stderr}")
check("dense(bf16)" in done.stdout and "Noise floor" in done.stdout, "the summary has the rows")
check("dedup(exact): no effect" in done.stderr, "a recipe without effect is told on stderr")
report = report_of("ab")
ab = report["ab"]
check(report["kind"] == "ab", "kind")
check([row["recipe"] for row in ab["rows"]] == ["dense(f16)"] + RECIPES, "the baseline first, then as given")
windows = ab["text"]["tokens"] // 256
check(ab["protocol"]["windows"] == windows and windows >= 4, f"{windows} windows")
for row in ab["rows"]:
    name = row["recipe"]
    for field in FIELDS:
        check(field in row and row[field] is not None, f"{name}: {field} is missing")
    ledger = row["ledger"]
    held = sum(ledger[part] for part in ("payload", "scales", "side", "tables", "slack"))
    check(held == row["bytes_held"] == ledger["held"], f"{name}: the ledger's parts and bytes_held")
    check(row["values"] == 256 * 2 * 4 * 2 * 16, f"{name}: values of all tokens seen")
    check(close(row["bits_per_value"], 8 * held / row["values"]), f"{name}: bits per value")
    check(close(row["compression"], 2 * row["values"] / held), f"{name}: compression")
    check(row["tokens"] == windows * 128, f"{name}: scored tokens")
    check(len(row["layers"]) == 4, f"{name}: layers")
    check(close(sum(layer["bytes"] for layer in row["layers"]), ledger["payload"] + ledger["scales"]),
          f"{name}: bytes of the layers")
    # The stored sums of the blocks are the row's means, computed here again.
    sums = {key: sum(row["block_sums"][key]) / row["tokens"] for key in ("nll", "kl", "same_top")}
    check(close(math.exp(sums["nll"]), row["perplexity"]), f"{name}: perplexity {row['perplexity']}")
    check(close(sums["kl"], row["kl_mean"]), f"{name}: mean KL {row['kl_mean']}")
    check(close(sums["same_top"], row["top1_agreement"]), f"{name}: top-1 {row['top1_agreement']}")
    check(close(row["delta_perplexity"], row["perplexity"] / row["perplexity_base"] - 1, 1e-2),
          f"{name}: change of perplexity")
    low, high = row["intervals"]["kl_mean"]
    check(low <= row["kl_mean"] <= high, f"{name}: interval {low} to {high}")
exact = row_of(report, "dense(f32)")
check(exact["kl_mean"] == exact["kl_max"] == exact["delta_perplexity"] == 0, "f32 pages are the base")
check(exact["top1_agreement"] == 1, "f32 pages agree everywhere")
shared = row_of(report, "layershare(start=0.5,every=2)")
check(shared["ledger"]["payload"] == row_of(report, "dense(f16)")["ledger"]["payload"] * 3 // 4, "one layer of four shared")
check(shared["kl_mean"] > 100 * ab["noise_floor"][0]["kl_mean"], "sharing a layer shows beside the noise floor")
effects = {row["recipe"]: row["effect"] for row in ab["rows"]}
check(effects == {"dense(f16)": "baseline", "dense(f32)": "bytes and logits", "dense(bf16)": "logits",
                  "layershare(start=0.5,every=2)": "bytes and logits", "dedup(exact)": "no effect"}, f"{effects}")
check(len(ab["differences"]) == 10, "every pair of rows")

try:
    import jsonschema

    schema = json.loads((SOURCE / "reports/report.schema.json").read_text())
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(report))
    check(not errors, f"report.json breaks its schema: {[e.message[:200] for e in errors[:3]]}")
except ImportError:
    print("jsonschema is not installed: the schema was not checked")

# Written again from its JSON; a damaged one is refused by name.
done = run("render", work / "ab", "--output-dir", work / "rendered")
check(done.returncode == 0, f"render: {done.stderr}")
check((work / "rendered/report.md").read_bytes() == (work / "ab/report.md").read_bytes(), "report.md rendered again")
for label, damage in (("block_sums", lambda r: r["ab"]["rows"][1]["block_sums"]["kl"].pop()),
                      ("kl_mean", lambda r: r["ab"]["rows"][0].pop("kl_mean")),
                      ("ab", lambda r: r.pop("ab")),
                      ("blocks", lambda r: r["ab"]["blocks"]["tokens"].append(1))):
    damaged = report_of("ab")
    damage(damaged)
    (work / "damaged.json").write_text(json.dumps(damaged))
    expect_refusal(f"damaged {label}", "render", work / "damaged.json", "--output-dir", work / "never", mentions=[label])

# The same at any number of threads; what differs is time.
def without_time(value):
    if isinstance(value, dict):
        times = ("timing", "codec", "seconds", "prefill_tokens_per_s", "decode_tokens_per_s", "memory", "workspace",
                 "on_front")
        return {key: without_time(item) for key, item in value.items() if key not in times}
    return [without_time(item) for item in value] if isinstance(value, list) else value


for threads in (1, 3):
    run("eval", *settings, *with_recipes(RECIPES[2]), "--no-timing", "--threads", threads, "--quiet", "--output-dir",
        work / f"threads-{threads}")
one, three = report_of("threads-1"), report_of("threads-3")
check(without_time(one["ab"]) == without_time(three["ab"]), "results differ with the number of threads")
check(row_of(one, RECIPES[2])["decode_tokens_per_s"] is None, "no speed without timing")
check(row_of(one, RECIPES[2])["kl_mean"] == shared["kl_mean"], "eval and ab give the same numbers")

# Turns, and a cap on the scored tokens.
done = run("eval", *settings, *with_recipes("layershare(start=0.5,every=2)@prefill"), "--turns", 2, "--tokens", 200,
           "--no-timing", "--quiet", "--output-dir", work / "turns")
check(done.returncode == 0, f"turns: {done.stderr}")
turns = report_of("turns")["ab"]["rows"][1]
check([turn["tokens"] for turn in turns["by_turn"]] == [128, 72], f"turns: {turns['by_turn']}")
check([window["tokens"] for window in turns["windows"]] == [256, 200], "the last window ends at the cap")

# Passkeys: a random model finds none, so nothing is informative, and the report says so.
long_model = random_model(work / "long-model", "--layers", 2, "--positions", 640)
passkey = ["--model", long_model, *settings[2:], *with_recipes("dense(bf16)", "evict(keep=0.5,sinks=0,window=0)", "merge(0.5,value,0,0)"), "--tokens", 128,
           "--no-timing", "--passkey", "--passkey-lengths", "400,480", "--passkey-depths", "0,0.5,1", "--passkey-trials", 2]
done = run("ab", *passkey, "--output-dir", work / "passkey")
check(done.returncode == 0, f"passkey: {done.stderr}")
check("12 prompts make" in done.stderr and "passkey: about" in done.stderr, f"the passkey's cost is told: {done.stderr}")
check("0 of 6 cells informative" in done.stdout, "the summary says what tells nothing")
found = report_of("passkey")["ab"]["passkey"]
check([(cell["length"], cell["depth"]) for cell in found["cells"]] == [(n, d) for n in (400, 480) for d in (0, 0.5, 1)], "cells")
check(all(cell["length"] - 15 < cell["mean_tokens"] <= cell["length"] for cell in found["cells"]), "lengths of prompts")
check(found["query_agnostic"] is True and found["informative_cells"] == 0, "how it was asked")
for row in (found["base"], *found["rows"]):
    check(len(row["cells"]) == 6 and all(cell["trials"] == 2 for cell in row["cells"]), f"{row['recipe']}: trials")
    check(row["accuracy"] is None and row["trials"] == 0, f"{row['recipe']}: no informative cell")
rows = report_of("passkey")["ab"]["rows"]
check([row["passkey_accuracy"] for row in rows] == [None] * 4, "no accuracy without an informative cell")
check("tells nothing of recipes" in (work / "passkey/report.md").read_text(), "the report says that the base fails")
check(ab["passkey"] is None and row_of(report, "dense(bf16)")["passkey_accuracy"] is None, "null where it was not run")
run("ab", *passkey, "--threads", 1, "--quiet", "--output-dir", work / "passkey-1")
check(without_time(found) == without_time(report_of("passkey-1")["ab"]["passkey"]), "passkeys differ with threads")

# Errors of the layers against the base; counters of methods.
exact_error, rounded_error = (row_of(report, name)["layer_error"] for name in ("dense(f32)", "dense(bf16)"))
check(exact_error == {"k": [0] * 4, "v": [0] * 4, "missing": [0] * 4}, f"f32 pages have no error: {exact_error}")
check(all(1e-4 < value < 1e-2 for value in rounded_error["k"] + rounded_error["v"]), f"bf16 rounds: {rounded_error}")
evicted = rows[2]
check(evicted["layer_error"]["missing"] == [0.5] * 2, f"half the tokens of full pages gone: {evicted['layer_error']}")
check(evicted["layer_error"]["v"][0] < 1e-3 < evicted["layer_error"]["v"][1], "the first layer sees no error of others")
dropped = evicted["codec"]["counters"]["evict.dropped_tokens"]
(merging,) = report_of("passkey")["ab"]["against_bases"]
check((merging["recipe"], merging["base"]) == ("merge(keep=0.5,by=value,sinks=0,window=0)", rows[2]["recipe"]), f"{merging}")
check(merging["merged_tokens"] == dropped, f"merging folds what eviction drops: {merging['merged_tokens']} and {dropped}")
check(merging["bytes_held"] == merging["base_bytes_held"], "at equal bytes")
check(close(merging["kl_mean"]["value"], rows[3]["kl_mean"] - rows[2]["kl_mean"], 1e-3), "merging less eviction")
check(dropped == 2 * 2 * 128, f"dropped tokens of 2 layers and 2 KV heads: {dropped}")

# compare: aligned rows, intervals, conditions; refused where nothing can be paired.
done = run("compare", work / "ab", work / "threads-1")
check(done.returncode == 0, f"compare: {done.stderr}")
check("Only first" in done.stdout and "difference 0 [0, 0]" in done.stdout, f"compare: {done.stdout}")
check(run("compare", work / "ab", work / "ab", "--fail-if", "kl_mean>100", "--quiet").returncode == 0, "a limit kept")
expect_refusal("a limit broken", "compare", work / "ab", work / "ab", "--fail-if", "kl_mean>0.00000001", "--quiet",
               mentions=["dense(bf16)", "kl_mean"])
check(run("compare", work / "ab", work / "ab", "--fail-if", "delta.kl_mean>0", "--quiet").returncode == 0, "no change")
for condition in ("kl_mean", "kl_mean>", "kl_mean>x", ">1", "recipe>1", "nothing<1", "kl_mean>nan"):
    expect_refusal(f"condition {condition}", "compare", work / "ab", work / "ab", "--fail-if", condition, "--quiet",
                   mentions=["--fail-if"])
other_text = work / "other.txt"
other_text.write_text(text.read_text()[5:])
run("eval", "--model", model, "--text", other_text, *settings[4:], *with_recipes("dense(f32)"), "--no-timing", "--quiet",
    "--output-dir", work / "other-text")
expect_refusal("other tokens", "compare", work / "ab", work / "other-text", mentions=["token"])
other_model = random_model(work / "other-model", "--layers", 4, "--positions", 256, "--seed", 9)
run("eval", "--model", other_model, *settings[2:], *with_recipes("dense(f32)"), "--no-timing", "--quiet", "--output-dir",
    work / "other-weights")
expect_refusal("other weights", "compare", work / "ab", work / "other-weights", mentions=["model"])

# Bad input: one line, nothing written.
short, binary = work / "short.txt", work / "binary.txt"
short.write_text("too short")
binary.write_bytes(b"good \xff bad" * 400)
REFUSED = [
    ("short text", {"--text": short}, ["short.txt", "256"]), ("no UTF-8", {"--text": binary}, ["UTF-8", "offset 5"]),
    ("missing text", {"--text": work / "none"}, ["none"]), ("long context", {"--context": 300}, ["--context", "256"]),
    ("long chunk", {"--chunk": 200}, ["--chunk", "128"]), ("no context", {"--context": 1}, ["--context"]),
    ("no page", {"--page-size": 0}, ["--page-size"]), ("negative", {"--tokens": -5}, ["--tokens"]),
    ("many turns", {"--turns": 1000}, ["--turns"]), ("method", {"--recipe": "quantum(4)"}, ["quantum"]),
    ("layer", {"--recipe": "layers(9): dense(f32)"}, ["9"]), ("empty", {"--recipe": ""}, ["recipe"]),
    ("passkey beyond the model", {"--passkey-lengths": "100,249"}, ["--passkey-lengths", "248", "249"]),
    ("passkey without room", {"--passkey-lengths": "40"}, ["--passkey-lengths", "40"]),
    ("deep passkey", {"--passkey-depths": "0,1.01", "--passkey-lengths": "100"}, ["--passkey-depths", "1.01"]),
    ("no passkeys", {"--passkey-trials": 0, "--passkey-lengths": "100"}, ["--passkey-trials"]),
]
for label, changes, mentions in REFUSED:
    options = dict(zip(settings[::2], settings[1::2])) | {"--recipe": "dense(f32)"} | changes
    flat = [word for pair in options.items() for word in pair] + ["--passkey"] * any("passkey" in name for name in options)
    expect_refusal(label, "eval", *flat, "--output-dir", work / "never", "--quiet", mentions=mentions)
expect_refusal("twice", "ab", *settings, *with_recipes("dense(f32)", "DENSE( f32 )"), "--output-dir", work / "never",
               "--quiet", mentions=["twice"])
check(not (work / "never").exists(), "bad input left something behind")
expect_refusal("required effect", "eval", *settings, *with_recipes("dedup(exact)"), "--no-timing", "--require-effect",
               "--quiet", "--output-dir", work / "idle", mentions=["--require-effect", "dedup(exact)"])
check(report_of("idle")["ab"]["rows"][1]["effect"] == "no effect", "the report is there all the same")

shutil.rmtree(work)
finish()
