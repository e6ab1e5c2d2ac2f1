#!/usr/bin/env python3
"""Measures what costs as the work grows, at five sizes each, and prints how fast it grows: the exponent fitted through
the times, beside the one fitted through what theory counts at the same sizes. Run by scripts/bench --growth.

All sizes of an operation take turns (tests/bench/turns), so that a machine that slows down slows down all of them.
"""

import argparse
import json
import math
import os
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "peers")]

from bench_table import OtherPrograms, circumstances, figure, write_json  # noqa: E402
from turns import Program, Session, take_turns  # noqa: E402


def exponent(sizes, costs):
    """The slope of the least-squares line through the logarithms."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope


class Shape:
    """Of the model, as its config.json says."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        self.layers, self.hidden, self.ffn = (config[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size"))
        self.heads, self.kv_heads, self.head_dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
        self.vocab = config["vocab_size"]

    def weights_of_layers(self):
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    def prefill(self, tokens):
        """Operations: products, and the causal half of attention."""
        attention = 2 * tokens * tokens * self.heads * self.head_dim * self.layers
        return 2 * tokens * self.weights_of_layers() + attention

    def decode(self, tokens):
        """Bytes read: bf16 weights, f16 keys and values."""
        return 2 * (self.weights_of_layers() + self.vocab * self.hidden) + 4 * tokens * self.layers * self.kv_heads * self.head_dim


def operations(model, threads):
    """name, size's unit, {size: Session}, theory's cost of a size and how it is said."""
    def sessions(operation, name, sizes, **settings):
        return {size: Session("turns", operation, {"threads": threads, name: size, **settings}) for size in sizes}

    if model:
        shape, decoder = Shape(model), {"model": model, "weights": "bf16"}
        yield ("prefill, bf16 weights", "tokens", sessions("prefill", "tokens", (128, 256, 512, 1024, 2048), **decoder),
               shape.prefill, "operations")
        yield ("decode step, bf16 weights, f16 pages", "tokens before it",
               sessions("decode", "depth", (512, 1024, 2048, 4096, 8128), steps=4, **decoder), shape.decode, "bytes")
    yield ("all pairs, five metrics", "pages", sessions("all_pairs", "pages", (512, 1024, 2048, 4096, 8192)),
           lambda pages: pages * pages, "pairs")
    yield ("near-duplicate search (cover at 0.9, none found)", "pages", sessions("cover", "pages", (512, 1024, 2048, 4096, 8192)),
           lambda pages: pages * pages, "pairs")


def measure(program, name, unit, sessions, theory, counted, rounds):
    print(f"measuring: {name}", file=sys.stderr, flush=True)

    def ask(size, session, command):
        return program.ask(command, str(size), *(session.fields() if command == "prepare" else []))

    readings = take_turns(sessions, ask, rounds)
    sizes = list(sessions)
    steps = [int(session.settings.get("steps", 1)) for session in sessions.values()]
    seconds = [statistics.median(reading[size] for reading in readings) / step for size, step in zip(sizes, steps)]
    return {"operation": name, "unit": unit, "sizes": sizes, "seconds": seconds, "exponent": exponent(sizes, seconds),
            "theory": exponent(sizes, [theory(size) for size in sizes]), "counted": counted}


def table(rows):
    lines = []
    for row in rows:
        lines.append(f"{row['operation']}: time grows as {row['unit']}^{row['exponent']:.2f}; "
                     f"{row['counted']} as ^{row['theory']:.2f}")
        lines += [f"  {size:>7,} {row['unit']:<17} {figure(1000 * seconds):>8} ms" for size, seconds in zip(row["sizes"], row["seconds"])]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Measures how costs grow; used by scripts/bench --growth.")
    parser.add_argument("folder", help="where the program turns is")
    parser.add_argument("--model", help="folder of the model; without it nothing decodes")
    parser.add_argument("--quick", action="store_true", help="three rounds instead of seven")
    parser.add_argument("--json", help="write the rows here too")
    arguments = parser.parse_args()
    others, threads = OtherPrograms(), os.cpu_count() or 1
    program = Program([os.path.join(arguments.folder, "turns")], {**os.environ, "OMP_WAIT_POLICY": "passive"})
    try:
        rows = [measure(program, *operation, rounds=3 if arguments.quick else 7)
                for operation in operations(arguments.model, threads)]
    finally:
        program.close()
    busy = others.cores()
    about = circumstances(busy, threads=threads)
    print(f"\n{about['date']}, commit {about['commit']}, {about['processor']}, {threads} threads, "
          f"{busy:.1f} cores busy with other programs\n")
    print(table(rows))
    if arguments.json:
        write_json(arguments.json, {**about, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
