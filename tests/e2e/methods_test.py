"""`kvanalyze methods` shows in text what its JSON says, in lines that a terminal holds."""
import json

from harness import check, finish, run

done = run("methods", "--json")
check(done.returncode == 0, done.stderr)
listed = json.loads(done.stdout)["methods"]
names = [method["name"] for method in listed]
check(names[:2] == ["dense", "quant"], f"methods: {names}")

overview = run("methods").stdout
for method in listed:
    alone = run("methods", method["name"].upper()).stdout
    check(alone in overview, f"{method['name']}: the overview shows something else")
    check(json.loads(run("methods", method["name"], "--json").stdout)["methods"] == [method], method["name"])
    words = alone.split()
    for expected in [method["meaning"], *(paper[part] for paper in method["papers"] for part in ("title", "arxiv"))]:
        check(expected in " ".join(words), f"{method['name']}: {expected}")
    for parameter in method["parameters"]:
        default = parameter["default"]
        shown = f"{parameter['name']} (unset)" if default is None else f"{parameter['name']}={default}"
        for expected in [shown, parameter["help"], *(word["name"] for word in parameter["words"])]:
            check(expected in " ".join(words), f"{method['name']}: {expected}")
        if parameter["kind"] not in ("word", "flag"):
            check(f"[{parameter['takes']}" in " ".join(words), f"{method['name']}: {parameter['takes']}")
widest = max(overview.splitlines(), key=len)
check(len(widest) <= 100, f"a line of {len(widest)} characters: {widest}")
check("dense(f16)" in run("methods", "baseline").stdout, "an alias is no name")
finish()
