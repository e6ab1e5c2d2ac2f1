#!/usr/bin/env python3
"""Lets kvanalyze and its peers take turns at the same work and prints one table; run by scripts/bench --peers.

Ours is build/*/bench/turns, a peer is scripts/peers/worker.py with the file that knows it; both stay alive, prepared
and asleep while the other works, and both speak the lines that tests/bench/turns/main.cc describes. A scene is a set
of such sessions; they take turns A B A B ..., seven rounds or more, and each row of the table is the median over the
rounds of ours divided by the peer's in the same round. A probe of the machine's limit takes part in each round: where
it moved by more than 15% from the first three rounds to the last three, its rows get no verdict, nor do rows whose two
programs did not arrive at the same. spread is the width
of the middle half of the ratios over their median.

A new row is a Row in one of scripts/peers/*_rows.py; its work for us an operation in tests/bench/turns/, for a peer
a class in its peer_*.py.
"""

import argparse
import importlib.util
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "peers")]

import analysis_rows  # noqa: E402
import codec_rows  # noqa: E402
import decoder_rows  # noqa: E402
import same_weights  # noqa: E402
from bench_table import OtherPrograms, circumstances, figure, write_json  # noqa: E402
from turns import Program, TurnError, measured, take_turns  # noqa: E402

# What each peer's file imports.
NEEDS = {"peer_llama": "llama_cpp", "peer_numpy": "numpy", "peer_faiss": "faiss", "peer_sklearn": "sklearn"}
# GNU OpenMP's default for everybody else: a while of spinning, then sleep.
PASSIVE = {"OMP_WAIT_POLICY": "passive"}


class Programs:
    """Starts what a scene needs; one of each kind for the whole run."""

    def __init__(self, folder):
        self.folder = folder
        self.running = {}
        self.missing = {peer for peer, module in NEEDS.items() if importlib.util.find_spec(module) is None}

    def ask(self, name, session, command):
        program = self.running.get(session.program)
        if program is None or program.child.poll() is not None:
            program = self.running[session.program] = self.start(session.program)
        return program.ask(command, name, *(session.fields() if command == "prepare" else []))

    def start(self, program):
        if program == "turns":
            return Program([os.path.join(self.folder, "turns")], {**os.environ, **PASSIVE})
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        return Program([sys.executable, os.path.join(HERE, "peers", "worker.py"), program], environment)

    def close(self):
        for program in self.running.values():
            program.close()


def all_scenes(arguments):
    """(what it is, sessions, rows), scene by scene; scenes that share a long context stand side by side."""
    cores = os.cpu_count() or 1
    threads = arguments.threads or ([cores] if arguments.quick else sorted({1, cores}))
    gguf = {"bf16": arguments.gguf_bf16, "int8": arguments.gguf_q8_0}
    if arguments.model and all(gguf.values()):
        for depth in (None, *decoder_rows.DEPTHS):
            for count in threads:
                yield from (("decoder", *scene) for scene in decoder_rows.scenes(arguments.model, gguf, count, depth))
    for count in threads:
        yield from (("codecs", *scene) for scene in codec_rows.scenes(count))
        yield from (("analysis", *scene) for scene in analysis_rows.scenes(count, arguments.quick))


def run(arguments, programs):
    """The rows, and the operations that get no verdict."""
    rows, unsure = [], []
    scenes = [scene for scene in all_scenes(arguments) if arguments.only in scene[0] or
              any(arguments.only in row.operation for row in scene[2])]
    start = time.monotonic()
    for index, (_, sessions, made) in enumerate(scenes):
        print(f"[{index + 1}/{len(scenes)}, {time.monotonic() - start:.0f} s] {made[0].operation}", file=sys.stderr, flush=True)
        absent = {session.program for session in sessions.values()} & programs.missing
        if absent:
            print(f"  left out: {', '.join(sorted(absent))} cannot be imported", file=sys.stderr)
            continue
        try:
            readings = take_turns(sessions, programs.ask, arguments.rounds)
        except TurnError as error:
            print(f"  left out: {error}", file=sys.stderr)
            continue
        facts = {name: session.facts for name, session in sessions.items()}
        for row in made:
            found, steady = measured(row, readings, facts)
            if found is None:
                print(f"  {row.operation}: lost in the noise", file=sys.stderr)
                continue
            rows.append(found)
            complaint = row.unequal and row.unequal(facts)
            if complaint:
                print(f"  {row.operation}: {complaint}", file=sys.stderr)
            if complaint or not steady:
                unsure.append(len(rows) - 1)
    return rows, unsure


def table(rows, unsure):
    """In Markdown, as docs/results/cpu.md has it."""
    lines = [["operation", "threads", "ours", "peer", "unit", "ratio", "must", "spread", "share of the limit", "verdict"]]
    for index, row in enumerate(rows):
        met = "" if row["must"] is None else "ok" if row["ratio"] >= row["must"] else "BELOW"
        lines.append([row["operation"], str(row["threads"]), figure(row["ours"]), figure(row["peer"]), row["unit"],
                      f"{row['ratio']:.2f}", "" if row["must"] is None else f"{row['must']:.2g}", f"{row['spread']:.0%}",
                      "" if row["share_of_limit"] is None else f"{row['share_of_limit']:.0%}",
                      "no verdict" if index in unsure else met])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths))} |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description="Lets kvanalyze and its peers take turns; used by scripts/bench --peers.")
    parser.add_argument("folder", help="where the program turns is")
    parser.add_argument("--model", help="folder of the model; without it nothing decodes")
    parser.add_argument("--gguf-bf16", help="the same model for llama.cpp")
    parser.add_argument("--gguf-q8_0", help="and with 8-bit weights")
    parser.add_argument("--rounds", type=int, default=9, help="at least 7")
    parser.add_argument("--quick", action="store_true", help="seven rounds, all cores only, and 4,096 pages only")
    parser.add_argument("--threads", type=int, action="append", help="only so many threads (may be repeated)")
    parser.add_argument("--only", default="", help="scenes with this in their name: decoder, codecs, analysis, or of an operation")
    parser.add_argument("--json", help="write the rows here too")
    arguments = parser.parse_args()
    arguments.rounds = 7 if arguments.quick else max(7, arguments.rounds)
    others, programs = OtherPrograms(), Programs(arguments.folder)
    try:
        if arguments.model and arguments.gguf_bf16 and "peer_llama" not in programs.missing:
            print(same_weights.report(programs.ask, arguments.model, arguments.gguf_bf16), flush=True)
        rows, unsure = run(arguments, programs)
    finally:
        programs.close()
    if not rows:
        print("bench: nothing was measured", file=sys.stderr)
        return 1
    busy = others.cores()
    about = circumstances(busy, cores=os.cpu_count(), rounds=arguments.rounds)
    print(f"\n{about['date']}, commit {about['commit']}, {about['processor']}, {about['cores']} cores, "
          f"{busy:.1f} of them busy with other programs, {arguments.rounds} rounds\n")
    print(table(rows, unsure))
    if arguments.json:
        write_json(arguments.json, {**about, "no_verdict": [rows[index]["operation"] for index in unsure], "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
