"""report.schema.json with an outside validator: it takes a good report and refuses broken ones, and kvanalyze agrees.

schema_test.py RENDER_EXAMPLE SOURCE_DIR
"""
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import jsonschema
except ImportError:
    print("skipped: jsonschema is not installed (scripts/requirements.txt)")
    sys.exit(77)

program, source = sys.argv[1], pathlib.Path(sys.argv[2])
schema = json.loads((source / "reports/report.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
failures = []


def loads(report):
    """kvanalyze's own opinion: (taken, what it says)."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(report, file)
        file.flush()
        done = subprocess.run([program, "check", file.name], capture_output=True, text=True, timeout=60)
    return done.returncode == 0, done.stdout.strip()


def parent_of(report, path):
    for key in path[:-1]:
        report = report[key]
    return report



def good_report(kind):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, kind, folder + "/report.json"], check=True, timeout=60)
        good = json.loads(pathlib.Path(folder, "report.json").read_text())
    for error in validator.iter_errors(good):
        failures.append(f"a good report is refused: {error.json_path}: {error.message[:200]}")
    if not loads(good)[0]:
        failures.append(f"kvanalyze refuses a good report: {loads(good)[1]}")
    return good


MISSING = object()
BROKEN = [
    (("schema",), "other"), (("schema_version",), 2), (("kind",), "quality"), (("model",), MISSING), (("model",), []),
    (("model", "layers"), 0), (("model", "layers"), 1.5), (("model", "layers"), "4"), (("model", "name"), ""),
    (("model", "position_encoding"), "alibi"), (("cache", "ledger", "held"), -1), (("provenance", "seed"), "7"),
    (("similarity", 0, "mean"), "x"), (("similarity", 0, "side"), "Q"), (("similarity", 0, "basis"), "other"),
    (("similarity", 0, "controls", "shuffled"), MISSING), (("similarity", 0, "share_over", "0.8"), 1.5),
    (("similarity", 0, "histogram", 3), -1), (("similarity", 0, "percentiles", "50"), [1]),
    (("heatmaps", 0, "bins"), 513), (("heatmaps", 0, "data"), 7), (("opportunity", 0, "freed_pages"), None),
    (("set_differences", 0, "verdict"), "maybe"), (("growth", 0, "context_tokens"), {}), (("sets", 0, "name"), "x" * 513),
    (("thresholds",), [0.1] * 33), (("prompts", 0, "truncated"), "no"), (("norms",), MISSING),
]
BROKEN_AB = [
    (("ab",), MISSING), (("ab", "rows"), []), (("ab", "rows", 0, "effect"), "some"), (("ab", "rows", 0, "kl_mean"), "x"),
    (("ab", "rows", 0, "intervals", "kl_mean"), [1]), (("ab", "rows", 0, "capacity"), MISSING),
    (("ab", "rows", 0, "capacity", "budgets", 0, "tokens"), -1), (("ab", "rows", 0, "ledger", "held"), None),
    (("ab", "rows", 0, "layers", 0, "layer"), 4096), (("ab", "rows", 0, "on_front"), 1), (("ab", "rows", 0, "recipe"), ""),
    (("ab", "noise_floor", 0, "chunk_tokens"), -1), (("ab", "equal_bytes", 0, "kl_mean", "low"), MISSING),
]
BROKEN_COMPRESS = [
    (("compression",), MISSING), (("compression", "recipe"), ""), (("compression", "dry_run"), "no"),
    (("compression", "stored_basis"), "turned"), (("compression", "bytes", "ledger", "held"), -1),
    (("compression", "bytes", "predicted_bytes"), MISSING), (("compression", "files", "zstd_level"), 99),
    (("compression", "files", "parts", 0, "disk_bytes"), "x"), (("compression", "errors", "k", "max_abs"), "x"),
    (("compression", "errors", "queries"), MISSING), (("compression", "layers", 0, "layer"), 4096),
    (("compression", "layers", 0, "attention"), 0.5), (("compression", "codecs", 0, "sides"), 1.5),
    (("compression", "codec", "remarks"), MISSING), (("compression", "timing"), None),
]
for kind, changes in (("json", BROKEN), ("json-ab", BROKEN_AB), ("json-compress", BROKEN_COMPRESS)):
    good = good_report(kind)
    for path, value in changes:
        report = copy.deepcopy(good)
        if value is MISSING:
            del parent_of(report, path)[path[-1]]
        else:
            parent_of(report, path)[path[-1]] = value
        where = ".".join(map(str, path))
        if validator.is_valid(report):
            failures.append(f"the schema takes a broken {where}")
        taken, said = loads(report)
        if taken:
            failures.append(f"kvanalyze takes a broken {where}")
        elif str(path[0]) not in said or said.count("\n"):
            failures.append(f"kvanalyze does not name {where} on one line: {said}")

print("\n".join(failures) or f"three good reports and {len(BROKEN) + len(BROKEN_AB) + len(BROKEN_COMPRESS)} broken ones: the schema and kvanalyze agree")
sys.exit(1 if failures else 0)
