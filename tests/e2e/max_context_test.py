"""`kvanalyze max-context` fills a cache until the memory ends, and says what stopped it."""
import json
import tempfile

from harness import check, expect_refusal, finish, random_model, run

RECIPE = "quant(k=4,v=4,axes=kivi,group=page)"

with tempfile.TemporaryDirectory() as folder:
    model = random_model(f"{folder}/model")

    def search(memory, *options):
        done = run("max-context", "--model", model, "--memory", memory, "--page-size", 16, "--chunk", 16, "--json",
                   "--quiet", *options)
        check(done.returncode == 0, done.stderr)
        return json.loads(done.stdout)

    whole = search("64MiB", "--recipe", RECIPE)
    positions = whole["positions"]
    check([row["recipe"] for row in whole["rows"]] == ["dense(f16)", RECIPE], f"rows: {whole['rows']}")
    for row in whole["rows"]:
        check(row["limit"] == "positions" and row["context"] == positions, f"all positions fit: {row}")
    dense, packed = whole["rows"]
    check(packed["cache_bytes"] < dense["cache_bytes"], "fewer bits are fewer bytes")
    check(packed["sequences"] > dense["sequences"], "and more sequences")

    # Just too little for the dense cache of all positions.
    short = whole["weight_bytes"] + dense["workspace_bytes"] + dense["cache_bytes"] * 3 // 4
    rows = {row["recipe"]: row for row in search(f"{short}b", "--recipe", RECIPE)["rows"]}
    dense_row = rows["dense(f16)"]
    check(dense_row["limit"] == "memory" and 0 < dense_row["context"] < positions, f"memory ends it: {dense_row}")
    check(dense_row["context"] % 16 == 0, "whole steps")
    used = whole["weight_bytes"] + dense_row["workspace_bytes"] + dense_row["cache_bytes"]
    check(used <= short, f"{used} bytes of {short}")
    check(rows[RECIPE]["context"] > dense_row["context"], f"packed pages hold more: {rows[RECIPE]}")

    two = search("64MiB", "--batch-size", 2)["rows"][0]
    check(abs(two["bytes_per_token"] - dense["bytes_per_token"]) < 0.2 * dense["bytes_per_token"],
          f"each sequence has pages of its own: {two}")

    shown = run("max-context", "--model", model, "--memory", "64MiB").stdout
    check("Longest context" in shown and "dense(f16)" in shown and "positions" in shown, shown)

    tiny = run("max-context", "--model", model, "--memory", "1KiB", "--quiet")
    check(tiny.returncode == 1 and "the weights alone take" in tiny.stderr, f"no room for weights: {tiny.stderr}")
    check(len(tiny.stderr.splitlines()) == 1, f"one line: {tiny.stderr}")
    expect_refusal("more than there is", "max-context", "--model", model, "--memory", "900TiB",
                   mentions=["--memory", "this machine"])
    expect_refusal("no size", "max-context", "--model", model, "--memory", "-3", mentions=["--memory"])
    expect_refusal("no recipe", "max-context", "--model", model, "--recipe", "quant(bits=0)", mentions=["bits"])
    expect_refusal("no text", "max-context", "--model", model, "--text", f"{folder}/none.txt", mentions=["none.txt"])

finish()
