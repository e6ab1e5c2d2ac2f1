#!/usr/bin/env python3
"""Compares kvanalyze's ids with those of Hugging Face's tokenizers, id for id, on a text file.

    scripts/check_tokenizer.py MODEL_FOLDER TEXT_FILE [--kvanalyze build/cpu/bin/kvanalyze]

Prints how many ids there are and their hash (FNV-1a over the ids as little-endian 32-bit numbers): the figures
that tests/fixtures/tokenizers/golden.json records. Exits with 1 at the first id that differs.
"""
import argparse
import pathlib
import subprocess
import sys

from tokenizers import Tokenizer


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for token in ids:
        for byte in token.to_bytes(4, "little"):
            value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
    return f"{value:016x}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--kvanalyze", help="the program; without it only the expected figures are printed")
    arguments = parser.parse_args()
    text = pathlib.Path(arguments.text).read_bytes().decode()
    expected = Tokenizer.from_file(f"{arguments.model}/tokenizer.json").encode(text).ids
    print(f"{len(expected)} ids, hash {fnv1a(expected)}")
    if arguments.kvanalyze is None:
        return
    command = [arguments.kvanalyze, "tokenize", "--model", arguments.model, "--file", arguments.text]
    found = [int(token) for token in subprocess.run(command, check=True, capture_output=True).stdout.split()]
    for index, (want, have) in enumerate(zip(expected, found)):
        if want != have:
            sys.exit(f"id {index}: expected {want}, found {have}")
    if len(expected) != len(found):
        sys.exit(f"expected {len(expected)} ids, found {len(found)}")
    print("kvanalyze agrees, id for id")


if __name__ == "__main__":
    main()
