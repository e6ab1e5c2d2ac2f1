#!/usr/bin/env python3
"""Runs the programs in build/*/bench and prints one table of what they measured; see scripts/bench."""

import argparse
import datetime
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))

# program, name of the benchmark -> operation, unit, limit, floor of the share
OPERATIONS = [
    ("decoder_bench", r"decode/(?P<type>\w+)/threads:(?P<threads>\d+)/", "decode {type}", "GB/s", "read bandwidth", 0.40),
    ("decoder_bench", r"prefill/(?P<type>\w+)/threads:(?P<threads>\d+)/chunk:(?P<chunk>\d+)",
     "prefill {type}, {chunk} tokens", "GFLOP/s", "product peak", 0.25),
    ("attention_bench", r"decode/(?P<type>\w+)/tokens:(?P<tokens>\d+)/page:\d+/threads:(?P<threads>\d+)",
     "attention of 1 token to {tokens}, {type}", "GB/s", "read bandwidth", None),
    ("attention_bench", r"prefill/(?P<type>\w+)/tokens:(?P<tokens>\d+)/threads:(?P<threads>\d+)",
     "attention of 256 tokens to {tokens}, {type}", "GFLOP/s", "product peak", None),
    ("recipe_bench", r"decode/(?P<recipe>.+)/tokens:(?P<tokens>\d+)/page:\d+/threads:(?P<threads>\d+)",
     "attention of 1 token to {tokens}, {recipe}", "GB/s of f16", "f16 pages", None),
    ("recipe_bench", r"(?P<what>encode|read_back)/(?P<recipe>.+)/manual_time", "{what} pages, {recipe}", "GB/s", "copy", None),
    ("similarity_bench", r"all_pairs_five_metrics/pages:(?P<pages>\d+)/threads:(?P<threads>\d+)",
     "all pairs of {pages}, five metrics", "Mpairs/s", "plain GEMM", 0.50),
    ("similarity_bench", r"all_pairs_cosine/pages:(?P<pages>\d+)/threads:(?P<threads>\d+)",
     "all pairs of {pages}, cosine, top 10", "Mpairs/s", "plain GEMM", 0.90),
    ("similarity_bench", r"all_pairs_bf16/pages:(?P<pages>\d+)/threads:(?P<threads>\d+)",
     "all pairs of {pages}, cosine in bf16, top 10", "Mpairs/s", "our f32", None),
    ("similarity_bench", r"all_pairs_(?P<what>hamming|jaccard)/pages:(?P<pages>\d+)/threads:(?P<threads>\d+)",
     "all pairs of {pages}, {what}", "Mpairs/s", "popcount", None),
    ("similarity_bench", r"kmeans/pages:(?P<pages>\d+)/clusters:(?P<clusters>\d+)/threads:(?P<threads>\d+)",
     "k-means of {pages}, {clusters} clusters", "GFLOP/s", "FAISS", 1.5),
    ("subspace_bench", r"randomized/rank:(?P<rank>\d+)", "truncated SVD of 4,096 x 1,024, rank {rank}", "GFLOP/s",
     "its bare products", None),
    ("subspace_bench", r"pages/threads:(?P<threads>\d+)", "SVD of pages of 256 x 64", "pages/s", "LAPACK", 1.5),
    ("similarity_bench", r"differing_bits_of_tiles", "Hamming tile", "Mpairs/s", "popcount", None),
]
FILTERS = {"decoder_bench": "/(batch:1|chunk:512)/",
           "attention_bench": "^(decode/(f16|bf16|f32)/tokens:2048/page:16|prefill/f16)/",
           "recipe_bench": r"^(decode/(quant.(4|8).|kivi.*outliers)/tokens:8192/page:64|(encode|read_back)/quant.(4|8).)/",
           "similarity_bench": "^(all_pairs.*/pages:4096|kmeans|differing_bits)",
           "subspace_bench": "."}
TYPES = {"f16": 0, "bf16": 1, "f32": 2}


class OtherPrograms:
    """How many cores are busy with what is neither this program nor its children."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
        busy = sum(fields) - fields[3] - fields[4]  # without idle and iowait; a hypervisor's steal counts
        own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return busy / os.sysconf("SC_CLK_TCK") - own, time.monotonic()

    def cores(self):
        busy, now = self.now()
        return max(0.0, (busy - self.start[0]) / (now - self.start[1]))


def run(folder, program, seconds, model):
    """The program's measurements, as Google Benchmark's JSON has them."""
    print(f"measuring: {program}", file=sys.stderr, flush=True)
    command = [os.path.join(folder, program)] + ([f"--model={model}"] if program == "decoder_bench" else [])
    result = subprocess.run(command + [f"--benchmark_filter={FILTERS[program]}", f"--benchmark_min_time={seconds}",
                                       "--benchmark_format=json"], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"bench: {program} ended with exit code {result.returncode}")
    return json.loads(result.stdout)["benchmarks"]


def rows_of(program, measurements):
    for found in measurements:
        for rank, (of, pattern, operation, unit, limit, floor) in enumerate(OPERATIONS):
            match = re.match(pattern, found["name"])
            if of != program or not match:
                continue
            if found.get("error_occurred"):
                print(f"{found['name']}: {found['error_message']}", file=sys.stderr)
                continue
            facts = match.groupdict()
            threads = int(facts.get("threads", 1))
            yield (rank, threads, TYPES.get(facts.get("type"), 0)), {
                "operation": f"{operation.format(**facts)}, {threads} thread{'s' * (threads > 1)}",
                "value": found["value"], "unit": unit, "limit": found["limit"], "limited_by": limit,
                "share": found["share"], "floor": floor, "tokens_per_s": found.get("tokens/s")}


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def commit():
    def git(*arguments):
        return subprocess.run(["git", "-C", HERE, *arguments], capture_output=True, text=True, check=False).stdout.strip()

    try:
        return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" and changes" if git("status", "--porcelain") else "")
    except OSError:  # no git here
        return "unknown"


def circumstances(busy, **more):
    """When, where and beside how many busy cores something was measured."""
    return {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "commit": commit(),
            "processor": processor(), **more, "cores_of_others": round(busy, 2)}


def write_json(path, found):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.write("\n")


def figure(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(row):
    if row["floor"] is None:
        return ""
    return "ok" if row["share"] >= row["floor"] else "BELOW"


def table(rows):
    lines = [["operation", "measured", "unit", "limit in the same run", "share", "floor", "", ""]]
    for row in rows:
        rate = row["tokens_per_s"]
        lines.append([row["operation"], figure(row["value"]), row["unit"],
                      f"{figure(row['limit'])} {row['limited_by']}", f"{row['share']:.0%}",
                      "" if row["floor"] is None else f"{row['floor']:.0%}", verdict(row),
                      f"{figure(rate)} tokens/s" if rate else ""])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = {1, 4, 5}
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                               for column, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def main():
    parser = argparse.ArgumentParser(description="Runs the benchmarks and prints one table; used by scripts/bench.")
    parser.add_argument("folder", help="where the NAME_bench programs are")
    parser.add_argument("--seconds", type=float, default=1, help="at least so long for each measurement")
    parser.add_argument("--model", help="folder of the model that decodes; without it nothing decodes")
    parser.add_argument("--json", help="write the rows here too")
    arguments = parser.parse_args()
    others = OtherPrograms()
    keyed = []
    for program in FILTERS:
        if arguments.model or program != "decoder_bench":
            keyed += rows_of(program, run(arguments.folder, program, arguments.seconds, arguments.model))
    busy = others.cores()
    rows = [row for _, row in sorted(keyed, key=lambda pair: pair[0])]
    if not rows:
        print("bench: nothing was measured", file=sys.stderr)
        return 1
    cores = os.cpu_count() or 1
    about = circumstances(busy, cores=cores)
    print(f"\n{about['date']}, commit {about['commit']}, {about['processor']}, {cores} cores, "
          f"{busy:.1f} of them busy with other programs\n")
    print(table(rows))
    print("\nshare: ratio of medians of turns. Decoding: bytes of weights over time. Prefill: operations of the layers' "
          "products;\nf16 is multiplied in f32. Recipes: bytes as f16 over time. All pairs: pages squared over time; the plain GEMM computes both triangles.")
    below = [row["operation"] for row in rows if verdict(row) == "BELOW"]
    if below:
        print(f"Below the floor: {'; '.join(below)}.")
    if busy > 0.1 * cores:
        print("Other programs were running: measure again on a quiet machine before believing any of this.")
    if arguments.json:
        write_json(arguments.json, {**about, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
