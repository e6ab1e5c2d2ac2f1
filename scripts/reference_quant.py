#!/usr/bin/env python3
"""Judges KV-cache recipes on a text with a decoder, cache and quantizers in plain NumPy: what kvanalyze must reproduce.

    scripts/reference_quant.py --model FOLDER --text FILE --recipe 'quant(4)' [--recipe ...] [--windows 2] [--out R.json]
    scripts/reference_quant.py --model FOLDER --text FILE --compare AB/report.json [--recipe ...] [--reference R.json]

Nothing is shared with the C++ but the model's files and the protocol (docs/measuring.md): non-overlapping windows of
--context tokens, the first half context, the second half scored; steps of --chunk tokens, causal inside, each reading
the compressed past; pages fill as f16 and are quantized when full; the base is an f32 cache in lockstep. nll and
KL(base || recipe) in nats, f64 from f32 logits.

--out writes {"protocol": {...}, "rows": [{"recipe", "tokens", "perplexity", "perplexity_base", "kl_mean",
"kl_median", "kl_p99", "kl_max", "top1_agreement", "seconds", "block_sums": {"nll", "kl", "same_top"} of blocks of 64
scored tokens, with --per-token also "per_token": {"nll", "nll_base", "kl", "same_top"}}]}.

--compare takes the protocol and, without --recipe, the recipes from the report of `kvanalyze ab` and compares block by
block: the difference (reference less kvanalyze) of the mean KL and of the mean nll, with the 95% interval of a paired
bootstrap over blocks. A row passes where each interval meets [-tolerance, tolerance] and is narrow enough to tell:
its half width at most the tolerance, or --resolution of the KL (of the KL's root for nll). Exit code 1 where a row
fails, 2 where nothing can be compared. Numbers that round the other way make the errors of two right implementations
independent draws from there on: 2 windows leave about 15% of the KL undecided at 4 bits, 20 windows 5%.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np
import tokenizers

from reference_cache import Cache
from reference_compare import BLOCK_TOKENS, block_sums, compare_rows, protocol_of
from reference_llama import Llama, InputError
from reference_recipe import METHODS, parse_recipe

LANES = 12  # recipes that step together; bounds the memory of caches and logits


def read_tokens(model, text):
    with open(text, "rb") as file:
        decoded = file.read().decode("utf-8")
    return tokenizers.Tokenizer.from_file(os.path.join(model, "tokenizer.json")).encode(
        decoded, add_special_tokens=False).ids


def steps_of(context, chunk):
    """(first, last) of each step; a step never spans the end of the context half."""
    half = context // 2
    for start, end in ((0, half), (half, context)):
        for first in range(start, end, chunk):
            yield first, min(first + chunk, end)


def log_softmax(logits):
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def scores_of(base, base_top, logits, targets):
    """Of each row: nll, KL(base || candidate), equal argmax. base: log probabilities [rows, vocabulary]."""
    candidate = log_softmax(logits)
    rows = np.arange(len(targets))
    kl = (np.exp(base) * (base - candidate)).sum(axis=-1)
    return np.stack([-candidate[rows, targets], -base[rows, targets], kl, logits.argmax(axis=-1) == base_top])


def run_window(model, tokens, recipes, protocol, seconds):
    """[recipes, 4, scored]: nll, nll of the base, KL, same top."""
    context, page = protocol["context"], protocol["page_size"]
    base = Cache(model, context, page, fill="f32")
    caches = [Cache(model, context, page, recipe.fill(), recipe.key_basis, recipe.plan(model.layers, model.kv_heads))
              for recipe in recipes]
    scored = [[] for _ in recipes]
    for first, last in steps_of(context, protocol["chunk_tokens"]):
        started = time.monotonic()
        hidden = model.step(tokens[first:last], [base] + caches)
        begin, end = max(first, context // 2 - 1), min(last, context - 1)  # position t predicts token t + 1
        if begin < end:
            hidden, targets = hidden[:, begin - first:end - first], np.asarray(tokens[begin + 1:end + 1])
            logits = model.logits(hidden[0])
            log_p, top = log_softmax(logits), logits.argmax(axis=-1)
            for index, rows in enumerate(hidden[1:]):
                scored[index].append(scores_of(log_p, top, model.logits(rows), targets))
        seconds.append(time.monotonic() - started)
    return np.stack([np.concatenate(parts, axis=-1) for parts in scored])


def run(model, tokens, recipes, protocol):
    """Rows in the order of the recipes, with every token's scores."""
    context = protocol["context"]
    if protocol["windows"] * context > len(tokens):
        raise InputError(f"--text: expected {protocol['windows'] * context} tokens, found {len(tokens)}")
    rows = []
    for start in range(0, len(recipes), LANES):
        lane, windows, seconds = recipes[start:start + LANES], [], []
        for window in range(protocol["windows"]):
            windows.append(run_window(model, tokens[window * context:(window + 1) * context], lane, protocol, seconds))
            print(f"window {window + 1} of {protocol['windows']}: {sum(seconds):.0f} s for {len(lane)} recipes",
                  file=sys.stderr, flush=True)
        rows += [row_of(recipe, scores, sum(seconds) / len(lane), context - context // 2)
                 for recipe, scores in zip(lane, np.concatenate(windows, axis=-1))]
    return rows


def row_of(recipe, scores, seconds, window_tokens):
    nll, nll_base, kl, same_top = scores
    return {
        "recipe": recipe.text, "tokens": len(nll), "perplexity": float(np.exp(nll.mean())),
        "perplexity_base": float(np.exp(nll_base.mean())), "kl_mean": float(kl.mean()),
        "kl_median": float(np.median(kl)), "kl_p99": float(np.quantile(kl, 0.99)), "kl_max": float(kl.max()),
        "top1_agreement": float(same_top.mean()), "seconds": round(seconds, 1),
        "block_sums": {name: block_sums(series, window_tokens) for name, series in
                       (("nll", nll), ("kl", kl), ("same_top", same_top))},
        "per_token": {name: [round(float(value), 9) for value in series] for name, series in
                      (("nll", nll), ("nll_base", nll_base), ("kl", kl), ("same_top", same_top))},
    }


def print_rows(rows):
    width = max(len(row["recipe"]) for row in rows)
    print(f"{'recipe':{width}}  perplexity   change    KL mean     KL 99%   top-1   seconds")
    for row in rows:
        change = row["perplexity"] / row["perplexity_base"] - 1
        print(f"{row['recipe']:{width}}  {row['perplexity']:10.4f}  {change:+7.3%}  {row['kl_mean']:9.3g}  "
              f"{row['kl_p99']:9.3g}  {row['top1_agreement']:6.2%}  {row['seconds']:8.1f}")


def known_recipes(report):
    """Those of the report's rows that this reference has methods for; the others are named on stderr."""
    recipes = []
    for row in report["ab"]["rows"]:
        try:
            recipes.append(parse_recipe(row["recipe"]))
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
    return recipes


def arguments_of(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     epilog=f"methods: {', '.join(METHODS)}")
    parser.add_argument("--model", required=True, help="a folder in Hugging Face layout")
    parser.add_argument("--text", help="UTF-8 text that is judged on")
    parser.add_argument("--recipe", action="append", default=[])
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--page-size", type=int, default=64)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--per-token", action="store_true", help="write every token's scores")
    parser.add_argument("--out", help="file of the results")
    parser.add_argument("--compare", help="report.json of kvanalyze ab on the same text")
    parser.add_argument("--reference", help="results of an earlier run, instead of running")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="nats that no interval need tell from 0")
    parser.add_argument("--resolution", type=float, default=0.2, help="half width at most, as a share of the mean KL or its root")
    arguments = parser.parse_args(argv)
    if not arguments.reference and not arguments.text:
        parser.error("--text is needed where nothing was run before (--reference)")
    if not arguments.recipe and not arguments.compare:
        parser.error("--recipe or --compare is needed")
    return arguments


def results_of(arguments, report):
    if arguments.reference:
        return json.loads(pathlib.Path(arguments.reference).read_text(encoding="utf-8"))
    protocol = protocol_of(report) if report else {
        "context": arguments.context, "chunk_tokens": arguments.chunk, "page_size": arguments.page_size,
        "windows": arguments.windows, "tokens": arguments.windows * (arguments.context - arguments.context // 2),
        "block_tokens": BLOCK_TOKENS}
    recipes = [parse_recipe(text) for text in arguments.recipe] or known_recipes(report)
    tokens = read_tokens(arguments.model, arguments.text)
    rows = run(Llama(arguments.model), tokens, recipes, protocol)
    if not arguments.per_token:
        for row in rows:
            del row["per_token"]
    return {"protocol": protocol, "rows": rows}


def main(argv):
    arguments = arguments_of(argv)
    try:
        report = None
        if arguments.compare:
            report = json.loads(pathlib.Path(arguments.compare).read_text(encoding="utf-8"))
        results = results_of(arguments, report)
        print_rows(results["rows"])
        if arguments.out:
            pathlib.Path(arguments.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        if report is None:
            return 0
        return 0 if compare_rows(results, report, arguments.tolerance, arguments.resolution) else 1
    except (InputError, OSError, ValueError) as error:
        print(f"reference_quant: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
