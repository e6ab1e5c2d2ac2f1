"""Compares the rows of scripts/reference_quant.py with those of a `kvanalyze ab` report, block by block."""

import math

import numpy as np

from reference_llama import InputError
from reference_recipe import parse_recipe

BLOCK_TOKENS = 64
RESAMPLES = 2000


def block_sums(series, window_tokens):
    """Sums over blocks of BLOCK_TOKENS within each window; the last block of a window may be shorter."""
    sums = []
    for window in range(0, len(series), window_tokens):
        part = series[window:window + window_tokens]
        sums += [float(part[at:at + BLOCK_TOKENS].sum()) for at in range(0, len(part), BLOCK_TOKENS)]
    return sums


def protocol_of(report):
    """What both sides must agree on. Throws where the reference cannot follow the report's protocol."""
    if report.get("kind") != "ab":
        raise InputError(f"--compare: kind: expected ab, found {report.get('kind')}; use a report of kvanalyze ab")
    found = report["ab"]["protocol"]
    protocol = {name: found[name] for name in ("context", "chunk_tokens", "page_size", "windows", "tokens",
                                               "block_tokens")}
    scored = protocol["windows"] * (protocol["context"] - protocol["context"] // 2)
    expected = {"tokens": scored, "turns": 1, "block_tokens": BLOCK_TOKENS, "weights": "f32"}
    for name, value in expected.items():
        if found[name] != value:
            raise InputError(f"--compare: protocol.{name}: expected {value}, found {found[name]}; run whole windows, "
                                 "one turn and --weights f32")
    return protocol


def paired_interval(differences, block_tokens, seed=0):
    """Mean a token of the blocks' differences and its 95% bootstrap interval: (mean, low, high)."""
    differences, sizes = np.asarray(differences, dtype=np.float64), np.asarray(block_tokens, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(sizes), size=(RESAMPLES, len(sizes)))
    means = differences[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return differences.sum() / sizes.sum(), low, high


def agrees(interval, tolerance, widest):
    _, low, high = interval
    return low <= tolerance and high >= -tolerance and (high - low) / 2 <= widest


def compare_rows(results, report, tolerance, resolution):
    """Prints one line a row and number. False where a row disagrees or the report does not have it."""
    protocol = protocol_of(report)
    if protocol != results["protocol"]:
        raise InputError(f"--compare: expected the protocol {results['protocol']}, found {protocol}")
    sizes, passed = report["ab"]["blocks"]["tokens"], True
    theirs = [(parse_or_none(row["recipe"]), row) for row in report["ab"]["rows"]]
    print(f"{'':4}  {'number':6}  {'reference':>10}  {'kvanalyze':>10}  {'difference [95% interval]':38}  recipe")
    for ours in results["rows"]:
        recipe = parse_recipe(ours["recipe"])
        found = next((row for other, row in theirs if other and other.same_as(recipe)), None)
        if found is None:
            print(f"FAIL  {ours['recipe']}: the report has no such row")
            passed = False
            continue
        # Two right implementations round some numbers apart, and from there on their errors are independent draws:
        # KL then differs by a share of itself, nll by a share of sqrt(KL).
        kl = ours["kl_mean"]
        for name, scale in (("kl", kl), ("nll", math.sqrt(max(kl, 0.0)))):
            a, b = (np.asarray(row["block_sums"][name], dtype=np.float64) for row in (ours, found))
            interval = paired_interval(a - b, sizes)
            good = agrees(interval, tolerance, max(tolerance, resolution * scale))
            passed = passed and good
            mean, low, high = interval
            print(f"{'ok' if good else 'FAIL':4}  {name:6}  {a.sum() / sum(sizes):10.6f}  {b.sum() / sum(sizes):10.6f}  "
                  f"{f'{mean:+.2e} [{low:+.2e}, {high:+.2e}]':38}  {ours['recipe']}")
    return passed


def parse_or_none(text):
    try:
        return parse_recipe(text)
    except InputError:
        return None
