#!/usr/bin/env python3
"""What a whole decoder does in a second on the GPU, as a table in Markdown:

    gpu_end_to_end.py PROGRAM [--device cuda] [--context 8192]

The model has SmolLM2-135M's shape and random weights, which mean nothing: times are a program's property, quality is not
looked at. PROGRAM is kvanalyze.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

RECIPES = ["dense(f16)", "quant(bits=8)", "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)"]
SHAPE = "--family llama --layers 30 --heads 9 --kv-heads 3 --head-dim 64 --vocab 49152".split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--context", type=int, default=8192)
    a = parser.parse_args()
    scripts = pathlib.Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="kva-end-to-end-") as folder:
        work = pathlib.Path(folder)
        subprocess.run([sys.executable, scripts / "make_random_model.py", work / "random-135m", *SHAPE, "--positions", str(2 * a.context)],
                       check=True, stdout=sys.stderr)
        (work / "text.txt").write_text("A page holds keys and values of some tokens, one head of one layer. " * (a.context // 16))
        command = [a.program, "ab", "--model", work / "random-135m", "--text", work / "text.txt", "--context", a.context, "--tokens", 64,
                   "--chunk", min(512, a.context // 2), "--weights", "bf16", "--device", a.device, "--no-plots", "--output-dir", work / "report"]
        for recipe in RECIPES:
            command += ["--recipe", recipe]
        subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)
        report = json.loads((work / "report/report.json").read_text())
    print(f"End to end on {report['provenance']['device']}: random weights (bf16) in SmolLM2-135M's shape, one sequence of {a.context} tokens.\n")
    print("| recipe | prefill, tokens/s | decode, tokens/s | bytes held |\n| --- | --- | --- | --- |")
    for row in report["ab"]["rows"]:
        print(f"| {row['recipe']} | {row['prefill_tokens_per_s']:.0f} | {row['decode_tokens_per_s']:.1f} | {row['bytes_held']:.0f} |")


if __name__ == "__main__":
    main()
