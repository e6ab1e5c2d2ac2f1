"""Lets a peer take turns: reads commands on stdin and answers each with one line, as tests/bench/turns/main.cc does.

    worker.py MODULE

MODULE is a file beside this one with OPERATIONS, {name: class}. A class is made with the settings of an operation
({name: text}); its `facts` say what one turn amounts to, turn() does it once and returns the seconds it took, and `found`, where it has
that, is what the last turn came to.
"""

import importlib
import os
import sys


def serve(operations, commands, answers):
    turns = {}
    for line in commands:
        try:
            answer = answer_to(line.rstrip("\n").split("\t"), operations, turns)
        except Exception as error:  # whatever a peer throws is its answer
            answer = f"error\t{type(error).__name__}: {' '.join(str(error).split())}"
        print(answer, file=answers, flush=True)


def answer_to(fields, operations, turns):
    command, name = fields[0], fields[1]
    if command == "prepare":
        turns.pop(name, None)  # its memory first
        settings = dict(field.split("=", 1) for field in fields[3:])
        turns[name] = operations[fields[2]](settings)
        return "ready" + spelled(turns[name].facts)
    if command == "turn":
        return f"done\tseconds={turns[name].turn():.9f}{spelled(getattr(turns[name], 'found', {}))}"
    if command == "drop":
        del turns[name]
        return "dropped"
    raise ValueError(f"command {command!r} is not known")


def spelled(numbers):
    return "".join(f"\t{key}={value}" for key, value in numbers.items())


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    serve(importlib.import_module(sys.argv[1]).OPERATIONS, sys.stdin, answers)


if __name__ == "__main__":
    main()
