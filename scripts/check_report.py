#!/usr/bin/env python3
"""Recomputes a redundancy report from its capture with NumPy and compares every number it can.

    check_report.py CAPTURE_FOLDER REPORT_JSON [--layers 0,5] [--no-shuffled]

An independent computation in double precision from manifest.json and the tensor files: similarity of all pairs
in all metrics, bases, scopes and groups with both controls, adjacent layers, layer matrix, heatmaps, duplicates,
covers, growth and norms. Clusters (FAISS) and bootstrap intervals are not recomputed. Prints each difference and
exits with 1 if there is one.
"""
import argparse
import base64
import json
import pathlib
import sys

import numpy as np

from capture_pages import Capture, Controls, Scope, inverse, scopes_of

METRICS = ("cosine", "cosine_centered", "l2_similarity", "hamming", "jaccard")
LOW = {"cosine": -1, "cosine_centered": -1, "l2_similarity": -1, "hamming": 0, "jaccard": 0}
FINE_BINS = 4000
# The analysis multiplies in f32; distances of pages that are close but not nearly equal keep five digits.
EPS = 3e-5
ROUNDING = 1e-6  # of six significant digits, for shares


class Checker:
    def __init__(self, capture, report, seed):
        self.capture, self.report = capture, report
        self.controls = Controls(capture, seed)
        self.thresholds = report["thresholds"]
        self.failures = self.checked = 0

    def expect(self, ok, where, what, expected, found):
        self.checked += 1
        if ok:
            return
        self.failures += 1
        if self.failures <= 40:
            print(f"differs: {where}: {what}: expected {expected}, found {found}")

    def close(self, where, what, expected, found, tolerance):
        self.expect(abs(expected - found) <= tolerance, where, what, expected, found)

    def summary(self, where, row, metric, values, best=None):
        """`values` of the pairs; `best` of each page where the row has a redundancy."""
        self.expect(row["pairs"] == len(values), where, "pairs", len(values), row["pairs"])
        if len(values) == 0 or row["pairs"] != len(values):
            return
        self.close(where, "mean", values.mean(), row["mean"], EPS)
        self.close(where, "std", values.std(), row["std"], EPS)
        for t in self.thresholds:
            # f32, as the analysis compares.
            self.share(where, f"share_over {t}", values, np.float64(np.float32(t)), row["share_over"][f"{t:g}"])
            if best is not None:
                self.share(where, f"redundancy {t}", best, np.float64(np.float32(t)), row["redundancy"][f"{t:g}"])
        ordered = np.sort(values)
        width = (1 - LOW[metric]) / FINE_BINS + EPS
        for p, found in row["percentiles"].items():
            at = float(p) / 100 * len(ordered)
            low = ordered[max(0, int(np.floor(at)) - 1)] - width
            high = ordered[min(len(ordered) - 1, int(np.ceil(at)))] + width
            self.expect(low <= found <= high, where, f"percentile {p}", f"{low} to {high}", found)
        if row.get("histogram"):
            bins = np.linspace(LOW[metric], 1, len(row["histogram"]) + 1)
            expected, _ = np.histogram(values, bins)
            near = np.abs(values[:, None] - bins[None, 1:-1]).min(axis=1) <= EPS
            moved = np.abs(expected - np.array(row["histogram"])).sum()
            self.expect(moved <= 2 * near.sum(), where, "histogram", expected.tolist(), row["histogram"])

    def share(self, where, what, values, threshold, found):
        expected = np.mean(values > threshold)
        unsure = np.mean(np.abs(values - threshold) <= EPS)
        self.close(where, what, expected, found, unsure + ROUNDING)

    def rows(self, section, **wanted):
        return [r for r in self.report[section] if all(r.get(k) == v for k, v in wanted.items())]

    def one(self, section, where, **wanted):
        rows = self.rows(section, **wanted)
        self.expect(len(rows) == 1, where, f"{section} rows", 1, len(rows))
        return rows[0] if len(rows) == 1 else None

    def similarity(self, layer, side, basis, real, shuffled, within):
        capture, controls = self.capture, self.controls
        upper = np.triu_indices(capture.pages, 1)
        diagonal = np.arange(capture.pages)
        for head, scope in real.items():
            for metric in METRICS:
                where = f"layer {layer} {side} {basis} head {head} {metric}"
                values = scope.all_pairs(metric)
                values[diagonal, diagonal] = -2
                groups = {"all": (0, capture.pages)}
                if head is None:
                    groups |= {s: r for s, r in capture.sets.items() if r[1] - r[0] > 1}
                for group, (first, last) in groups.items():
                    row = self.one("similarity", where, layer=layer, side=side, basis=basis, head=head,
                                   metric=metric, group=group)
                    if row is None:
                        continue
                    block = values[first:last, first:last]
                    inside = np.triu_indices(last - first, 1)
                    at = f"{where} {group}"
                    self.expect(row["pages"] == last - first, at, "pages", last - first, row["pages"])
                    self.summary(at, row, metric, block[inside], block.max(axis=1))
                    partners = np.array(controls.partner if group == "all" else controls.partner_in_set)
                    random = scope.pairs(metric, partners)[first:last]
                    self.summary(at + " random", row["controls"]["random"], metric, random, random)
                    if metric == "l2_similarity":
                        mean = scope.distances(scope)[first:last, first:last][inside].mean()
                        self.close(at, "l2_mean", mean, row["l2_mean"], 1e-4 * mean + 1e-9)
                    if shuffled:
                        other = (shuffled if group == "all" else within)[head].all_pairs(metric)
                        other[diagonal, diagonal] = -2
                        block = other[first:last, first:last]
                        self.summary(at + " shuffled", row["controls"]["shuffled"], metric, block[inside],
                                     block.max(axis=1))
                if head is None and metric == "cosine_centered" and capture.is_stored(side, basis):
                    self.heatmap(layer, side, basis, values, upper)

    def heatmap(self, layer, side, basis, values, upper):
        where = f"layer {layer} {side} heatmap"
        row = self.one("heatmaps", where, layer=layer, side=side, basis=basis)
        if row is None:
            return
        bins = row["bins"]
        cells = np.frombuffer(base64.b64decode(row["data"]), np.int8).reshape(bins, bins)
        bin_of = np.arange(self.capture.pages) * bins // self.capture.pages
        sums, counts = np.zeros((bins, bins)), np.zeros((bins, bins))
        for i, j in (upper, upper[::-1]):
            np.add.at(sums, (bin_of[i], bin_of[j]), values[i, j])
            np.add.at(counts, (bin_of[i], bin_of[j]), 1)
        expected = np.where(counts > 0, 127 * sums / np.maximum(counts, 1), -128)
        worst = np.abs(expected - cells).max()
        self.expect(worst <= 0.5 + 127 * EPS, where, "largest difference in steps of 1/127", 0.5, worst)

    def adjacent(self, layer, side, basis, below, above, shuffled_below, within_above):
        same = np.arange(self.capture.pages)
        partner = np.array(self.controls.partner)
        for head in below:
            for metric in METRICS:
                where = f"layers {layer} and {layer + 1} {side} {basis} head {head} {metric}"
                row = self.one("adjacent_layers", where, layer=layer, side=side, basis=basis, head=head,
                               metric=metric)
                if row is None:
                    continue
                self.summary(where, row, metric, below[head].pairs(metric, same, above[head]))
                self.summary(where + " random", row["controls"]["random"], metric,
                             below[head].pairs(metric, partner, above[head]))
                if shuffled_below:
                    self.summary(where + " shuffled", row["controls"]["shuffled"], metric,
                                 shuffled_below[head].pairs(metric, same, within_above[head]))

    def duplicates(self, layer, side):
        capture = self.capture
        raw = capture.stored_bytes(layer, side)
        size = len(raw) // (capture.pages * capture.heads)
        pages = [raw[k * size : (k + 1) * size] for k in range(capture.pages * capture.heads)]
        row = self.one("duplicates", f"layer {layer} {side}", layer=layer, side=side)
        if row is not None:
            unique = len(set(pages))
            self.expect(row["unique"] == unique, f"layer {layer} {side}", "unique pages", unique, row["unique"])
            bytes_ = (len(pages) - unique) * size
            self.expect(row["bytes"] == bytes_, f"layer {layer} {side}", "duplicate bytes", bytes_, row["bytes"])

    def opportunity(self, layer, side, basis, real, shuffled):
        for metric in ("cosine", "l2_similarity"):
            for key, scopes in (("freed_pages", real), ("shuffled_freed_pages", shuffled)):
                if not scopes:
                    continue
                heads = [s.all_pairs(metric) for h, s in scopes.items() if h is not None]
                for t in self.thresholds:
                    where = f"layer {layer} {side} {basis} {metric} over {t}"
                    row = self.one("opportunity", where, layer=layer, side=side, basis=basis, metric=metric,
                                   threshold=t)
                    if row is None:
                        continue
                    limit = np.float64(np.float32(t))
                    freed = sum(self.cover(values, limit) for values in heads)
                    unsure = sum(np.sum(np.abs(np.tril(v, -1) - limit) <= EPS) for v in heads)
                    self.close(where, key, freed, row[key], unsure)

    @staticmethod
    def cover(values, limit):
        kept = np.zeros(len(values), dtype=bool)
        for page in range(len(values)):
            kept[page] = not np.any(values[page, :page][kept[:page]] > limit)
        return len(values) - int(kept.sum())

    def norms(self, layer, side, x):
        row = self.one("norms", f"layer {layer}", layer=layer)
        norm = np.linalg.norm(x, axis=3).mean()
        rms = np.sort(np.sqrt((x**2).mean(axis=(0, 2))).ravel())
        median = rms[(len(rms) - 1) // 2]
        self.close(f"layer {layer}", f"{side} norm", norm, row[f"{side.lower()}_norm"], 1e-5 * norm)
        outliers = int(np.sum(rms > 6 * median))
        self.expect(row[f"{side.lower()}_outlier_channels"] == outliers, f"layer {layer}", f"{side} outliers",
                    outliers, row[f"{side.lower()}_outlier_channels"])

    def side(self, side, basis, layers, with_shuffled):
        capture, before, normed = self.capture, None, {}
        earlier = []
        for layer in range(capture.layers):
            x = capture.values(layer, side, basis)
            mean = x.mean(axis=(0, 2), keepdims=True).astype(np.float32).astype(np.float64)
            joined = Scope(x, x - mean)
            normed[layer] = joined.c * inverse(joined.c_norm)[:, None]
            earlier.append(self.earlier_partners(joined))
            if layer not in layers and layer - 1 not in layers:
                before = None
                continue
            real = scopes_of(x, x - mean)
            shuffled = within = None
            if with_shuffled:
                moved = Controls.reorder(x, self.controls.everywhere)
                shuffled = scopes_of(moved, moved - mean)
                moved = Controls.reorder(x, self.controls.within)
                within = scopes_of(moved, moved - mean)
            if before and layer - 1 in layers:
                self.adjacent(layer - 1, side, basis, before[0], real, before[1], within)
            if layer in layers:
                self.similarity(layer, side, basis, real, shuffled, within)
                self.opportunity(layer, side, basis, real, shuffled)
                if capture.is_stored(side, basis):
                    self.duplicates(layer, side)
                    self.norms(layer, side, x)
            before = (real, shuffled)
        self.across_layers(side, basis, normed, earlier)

    def earlier_partners(self, joined):
        """For each page whether, and whether for sure, an earlier page of its prompt is over 0.9."""
        values = joined.all_pairs("cosine_centered")
        best = np.full(self.capture.pages, -2.0)
        for _, first, last in self.capture.prompts:
            for page in range(first + 1, last):
                best[page] = values[page, first:page].max()
        return best

    def across_layers(self, side, basis, normed, earlier):
        row = self.one("layer_matrix", f"{side} {basis}", side=side, basis=basis)
        values = np.array(row["values"])
        for a in range(self.capture.layers):
            for b in range(self.capture.layers):
                mean = np.sum(normed[a] * normed[b]) / self.capture.pages
                self.close(f"{side} {basis} layer matrix", f"{a}, {b}", mean, values[a, b], EPS)
        limit = np.float64(np.float32(0.9))
        for name in self.capture.sets:
            row = self.one("growth", f"{side} {basis} {name}", set=name, side=side, basis=basis)
            if row is None:
                continue
            prompts = [(f, l) for s, f, l in self.capture.prompts if s == name]
            for tokens, found in zip(row["context_tokens"], row["redundancy"]):
                count = tokens // self.capture.tokens
                best = np.concatenate([b[f : min(l, f + count)] for b in earlier for f, l in prompts])
                self.share(f"{side} {basis} {name}", f"growth at {tokens}", best, limit, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", help="capture folder")
    parser.add_argument("report", help="report.json made from it")
    parser.add_argument("--layers", help="layers to compare pair by pair, comma-separated (default: all)")
    parser.add_argument("--no-shuffled", action="store_true", help="leave the shuffled control out")
    args = parser.parse_args()
    capture = Capture(args.capture)
    report = json.loads(pathlib.Path(args.report).read_text("utf-8"))
    layers = range(capture.layers) if args.layers is None else [int(l) for l in args.layers.split(",")]
    checker = Checker(capture, report, report["provenance"]["seed"])
    for side, basis in capture.sides():
        checker.side(side, basis, set(layers), not args.no_shuffled)
    print(f"{checker.checked} numbers compared, {checker.failures} differ")
    return 1 if checker.failures or checker.checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
