#!/usr/bin/env python3
"""Judges KV-cache recipes on a text with a decoder, cache and quantizers in plain NumPy: what kvanalyze must reproduce.

    scripts/reference_quant.py --model FOLDER --text FILE --recipe 'quant(4)' [--recipe ...] [--windows 2] [--out R.json]
    scripts/reference_quant.py --model FOLDER --text FILE --compare AB/report.json [--recipe ...] [--reference R.json]

Nothing is shared with the C++ but the model's files and the protocol (docs/measuring.md): non-overlapping windows of
--context tokens, the first half context, the second half scored; steps of --chunk tokens, causal inside, each reading
the compressed past; pages fill as f16 and are quantized when full; the base is an f32 cache in lockstep. nll and
KL(base || recipe) in nats, f64 from f32 logits. Methods that learn (nuq, pq) see the first 4,096 tokens of
--calibration, by default the general prompts of reports/prompts.

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
import functools
import json
import multiprocessing
import os
import pathlib
import sys
import time

# Processes share the work, a thread each: BLAS's own threads help little at these sizes, and where other programs
# run too they wait for each other more than they compute. To be said before NumPy is loaded.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import tokenizers  # noqa: E402
import xxhash  # noqa: E402

from reference_cache import Cache
from reference_calibration import TOKENS, Sample, built_in_text
from reference_compare import BLOCK_TOKENS, block_sums, compare_rows, protocol_of
from reference_llama import Llama, InputError
from reference_recipe import METHODS, parse_recipe

LANES = 12  # recipes that step together; bounds the memory of caches and logits


def read_text(path):
    return pathlib.Path(path).read_bytes().decode("utf-8")


def tokens_of(model, text):
    return tokenizers.Tokenizer.from_file(os.path.join(model, "tokenizer.json")).encode(
        text, add_special_tokens=False).ids


def calibration_of(arguments, report):
    """The first tokens of the text that methods learn from; the report's must be the same."""
    theirs = report["ab"]["calibration"] if report else None
    path = arguments.calibration or (theirs["file"] if theirs else "")
    ids = tokens_of(arguments.model, read_text(path) if path else built_in_text())[:TOKENS]
    found = "xxh3:" + xxhash.xxh3_128_hexdigest(np.array(ids, dtype="<i4").tobytes())
    if theirs and found != theirs["token_hash"]:
        raise InputError(f"--calibration: expected tokens of hash {theirs['token_hash']}, as in the report, found {found}; "
                         "give the same text")
    return ids


def steps_of(context, chunk):
    """(first, last) of each step; a step never spans the end of the context half."""
    half = context // 2
    for start, end in ((0, half), (half, context)):
        for first in range(start, end, chunk):
            yield first, min(first + chunk, end)


def log_normalizers(logits):
    """ln of the sum of exp, f64, of each row."""
    most = logits.max(axis=-1).astype(np.float64)
    return most + np.log(np.exp(logits - most[:, None]).sum(axis=-1))


class Scorer:
    """Scores candidates' logits [rows, vocabulary] beside the base's."""

    def __init__(self, base, targets):
        self.rows, self.targets = np.arange(len(targets)), targets
        self.log_p = base - log_normalizers(base)[:, None]
        self.p, self.top = np.exp(self.log_p), base.argmax(axis=-1)

    def scores_of(self, logits):
        """Of each row: nll, that of the base, KL(base || candidate), equal argmax."""
        log_sum = log_normalizers(logits)
        kl = np.einsum("rv,rv->r", self.p, self.log_p - logits) + log_sum
        return np.stack([log_sum - logits[self.rows, self.targets], -self.log_p[self.rows, self.targets], kl,
                         logits.argmax(axis=-1) == self.top])


def run_window(model, tokens, recipes, protocol):
    """[recipes, 4, scored]: nll, nll of the base, KL, same top; and the seconds that it took."""
    started = time.monotonic()
    context, page = protocol["context"], protocol["page_size"]
    base = Cache(model, context, page, fill="f32")
    caches = [Cache(model, context, page, recipe.fill(), recipe.key_basis, recipe.plan(model.layers, model.kv_heads))
              for recipe in recipes]
    scored = [[] for _ in recipes]
    for first, last in steps_of(context, protocol["chunk_tokens"]):
        hidden = model.step(tokens[first:last], [base] + caches)
        begin, end = max(first, context // 2 - 1), min(last, context - 1)  # position t predicts token t + 1
        if begin < end:
            hidden, targets = hidden[:, begin - first:end - first], np.asarray(tokens[begin + 1:end + 1])
            scorer = Scorer(model.logits(hidden[0]), targets)
            for index, rows in enumerate(hidden[1:]):
                scored[index].append(scorer.scores_of(model.logits(rows)))
    return np.stack([np.concatenate(parts, axis=-1) for parts in scored]), time.monotonic() - started


SHARED = {}  # what forked processes find without a copy


def run_part(part):
    window, lane = part
    context = SHARED["protocol"]["context"]
    return run_window(SHARED["model"], SHARED["tokens"][window * context:(window + 1) * context], lane,
                      SHARED["protocol"])


def lanes_of(recipes, windows, jobs):
    """The recipes that step together, and share a base: so many at once that every job has something to do."""
    lanes = max(-(-len(recipes) // LANES), min(len(recipes), -(-jobs // windows)))
    return [recipes[index::lanes] for index in range(lanes)]


def learn(model, recipes, protocol, calibration):
    """calibration: token ids."""
    @functools.cache
    def sample_of(key_basis):
        started = time.monotonic()
        sample = Sample(model, calibration, protocol["context"], protocol["page_size"], key_basis)
        print(f"calibration text in keys({key_basis}): {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return sample

    for recipe in recipes:
        recipe.learn(model.layers, model.kv_heads, sample_of)


def run(model, tokens, recipes, protocol, jobs=1, calibration=()):
    """Rows in the order of the recipes, with every token's scores. Windows and lanes run in processes of their own."""
    context, windows = protocol["context"], protocol["windows"]
    if windows * context > len(tokens):
        raise InputError(f"--text: expected {windows * context} tokens, found {len(tokens)}")
    learn(model, recipes, protocol, calibration)
    work = [(window, lane) for lane in lanes_of(recipes, windows, jobs) for window in range(windows)]
    SHARED.update(model=model, tokens=tokens, protocol=protocol)
    scores, seconds, done = {}, {}, 0
    with multiprocessing.get_context("fork").Pool(min(jobs, len(work))) as pool:
        for (window, lane), (of_lane, took) in zip(work, pool.imap(run_part, work)):
            done += 1
            print(f"{done} of {len(work)} parts: window {window + 1}, {len(lane)} recipes, {took:.0f} s",
                  file=sys.stderr, flush=True)
            for recipe, of_recipe in zip(lane, of_lane):
                scores.setdefault(id(recipe), []).append(of_recipe)
                seconds[id(recipe)] = seconds.get(id(recipe), 0) + took / len(lane)
    return [row_of(recipe, np.concatenate(scores[id(recipe)], axis=-1), seconds[id(recipe)], context - context // 2)
            for recipe in recipes]


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
    parser.add_argument("--calibration", help="UTF-8 text for methods that learn (default: the report's, or the built-in "
                                              "general prompts)")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--page-size", type=int, default=64)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
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
    tokens = tokens_of(arguments.model, read_text(arguments.text))
    rows = run(Llama(arguments.model), tokens, recipes, protocol, max(1, arguments.jobs),
               calibration_of(arguments, report))
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
