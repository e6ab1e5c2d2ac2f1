"""Recipes as `kvanalyze` spells them, as far as scripts/reference_quant.py has the methods: one step a statement, or
lowrank and a format of its coefficients; trigger @seal."""

import dataclasses
import re

import numpy as np

from reference_cache import SIDES
from reference_llama import InputError
from reference_codebooks import Nuq, Pq, TurboQuant
from reference_methods import QUANT, Dense, Gear, LowRank, MiniCache, Quant

# With parameters in the order that values without a name fill, and their defaults.
METHODS = {
    "dense": (Dense, {"type": "f16"}),
    "quant": (Quant, QUANT),
    "nuq": (Nuq, {"bits": 3, "outliers": 0.01, "axes": "kivi"}),
    "turboquant": (TurboQuant, {"bits": 4}),
    "gear": (Gear, {"bits": 4, "rank": 2, "outliers": 0.02, "axes": "kivi", "group": "page"}),
    "pq": (Pq, {"m": 16, "bits": 8}),
    "lowrank": (LowRank, {"rank": 0.5, "layers": 1, "fit_tokens": None}),
    "minicache": (MiniCache, {"start": 0.5, "t": 0.6, "retain": 0.05}),
}
OF_COEFFICIENTS = ("quant", "turboquant", "gear")
ALIASES = {"baseline": "dense(f16)", "zeroquant": "quant(bits=8)"}
PARAMETER_ALIASES = {"merge_start_layer": "start"}
TYPES = {"f16": "f16", "fp16": "f16", "float16": "f16", "f32": "f32", "fp32": "f32", "float32": "f32",
         "bf16": "bf16", "bfloat16": "bf16", "fp8": "fp8_e4m3", "e4m3": "fp8_e4m3", "fp8_e4m3": "fp8_e4m3",
         "e5m2": "fp8_e5m2", "fp8_e5m2": "fp8_e5m2"}


@dataclasses.dataclass
class Statement:
    where: tuple  # ((name, ranges), ...); empty for the rest
    method: str
    options: dict
    inner: tuple = ()  # (method, options) of what lowrank makes

    def made(self):
        make = METHODS[self.method][0]
        if not self.inner:
            return make(self.options)
        inner, options = self.inner
        return make(self.options, METHODS[inner][0](options))


@dataclasses.dataclass
class Recipe:
    text: str
    key_basis: str
    statements: list
    learnt: dict = dataclasses.field(default_factory=dict)  # what methods know of the calibration text, by statement

    def same_as(self, other):
        return self.key_basis == other.key_basis and self.statements == other.statements

    def fill(self):
        """The type that pages fill in: what the recipe keeps, f32 where it keeps several types, f16 by default. A page
        becomes fp8 when it is full, as codes do."""
        types = {statement.options["type"] for statement in self.statements if statement.method == "dense"}
        types = {each for each in types if not each.startswith("fp8")}
        return types.pop() if len(types) == 1 else "f32" if types else "f16"

    def plan(self, layers, kv_heads):
        """Fresh methods and the cells they work on, for one sequence."""
        free = {side: np.ones((layers, kv_heads), dtype=bool) for side in SIDES}
        plan = []
        for statement in sorted(self.statements, key=lambda each: not each.where):  # the rest comes last
            masks = self.cells(statement, layers, kv_heads) if statement.where else free
            if any((masks[side] & ~free[side]).any() for side in SIDES):
                raise InputError(f"{self.text}: two statements name the same cells")
            free = {side: free[side] & ~masks[side] for side in SIDES}
            plan.append((statement.made(), masks))
            plan[-1][0].learnt = self.learnt.get(len(plan) - 1)
        return plan

    def learn(self, layers, kv_heads, sample_of):
        """Before the plans are made. sample_of(key basis): a calibration text's Sample."""
        for index, (method, masks) in enumerate(self.plan(layers, kv_heads)):
            if method.learns:
                self.learnt[index] = method.learn(sample_of(self.key_basis), masks)

    @staticmethod
    def cells(statement, layers, kv_heads):
        chosen = {"layers": np.ones(layers, dtype=bool), "heads": np.ones(kv_heads, dtype=bool), "side": "kv"}
        for name, ranges in statement.where:
            if name == "side":
                chosen["side"] = ranges
                continue
            chosen[name] = np.zeros_like(chosen[name])
            for first, last in ranges:
                count = len(chosen[name])
                chosen[name][first % count:last % count + 1] = True
        both = np.outer(chosen["layers"], chosen["heads"])
        return {side: both if side in chosen["side"] else np.zeros_like(both) for side in SIDES}


def parse_recipe(text):
    plain = re.sub(r"\s+", "", re.sub(r"#.*", "", text)).lower()
    key_basis, statements = "rotated", []
    for part in filter(None, plain.split(";")):
        basis = re.fullmatch(r"keys\((rotated|plain|page-relative)\)", part)
        if basis:
            key_basis = basis[1]
        else:
            statements.append(parse_statement(part, text))
    if not statements:
        raise InputError(f"{text!r}: expected a method, found none")
    return Recipe(plain, key_basis, statements)


def parse_statement(part, text):
    where, _, pipeline = part.rpartition(":")
    selectors = () if where in ("", "rest") else tuple(parse_selector(each, text) for each in where.split("&"))
    steps = pipeline.removesuffix("@seal").split("|")
    if len(steps) > 2 or not all(re.fullmatch(r"\w+(\([^()]*\))?", step) for step in steps):
        raise InputError(f"{text!r}: expected one step, or two, with trigger @seal, found {pipeline!r}: not in the reference")
    first, *inner = (parse_step(step, text) for step in steps)
    if inner and (first[0] != "lowrank" or inner[0][0] not in OF_COEFFICIENTS or inner[0][1].get("window")):
        raise InputError(f"{text!r}: expected lowrank before one of {', '.join(OF_COEFFICIENTS)}, without a window, found "
                         f"{pipeline!r}: not in the reference")
    return Statement(selectors, *first, *inner)


def parse_step(step, text):
    """(method, options)"""
    name, _, arguments = ALIASES.get(step, step).rstrip(")").partition("(")
    if name in ALIASES:  # zeroquant(4)
        name = ALIASES[name].partition("(")[0]
    if name not in METHODS:
        raise InputError(f"{text!r}: expected {', '.join(METHODS)}, found {name!r}: not in the reference")
    options = dict(METHODS[name][1])
    for index, argument in enumerate(filter(None, arguments.split(","))):
        key, _, value = argument.rpartition("=")
        key = PARAMETER_ALIASES.get(key, key) or (list(options) + [argument])[index]
        if key not in options:
            raise InputError(f"{text!r}: expected {', '.join(options)}, found {key!r}: not in the reference")
        options[key] = parse_value(value)
    if name == "dense":
        if options["type"] not in TYPES:
            raise InputError(f"{text!r}: type: expected {', '.join(TYPES)}, found {options['type']}")
        options["type"] = TYPES[options["type"]]
    return name, options


def parse_selector(part, text):
    match = re.fullmatch(r"(layers|heads|side)\(([^()]*)\)", part)
    if not match:
        raise InputError(f"{text!r}: expected layers(), heads() or side(), found {part!r}")
    if match[1] == "side":
        return match[1], match[2]
    bounds = [re.fullmatch(r"(-?\d+)(?:-(-?\d+))?", each) for each in match[2].split(",")]
    if not all(bounds):
        raise InputError(f"{text!r}: expected layers(0-1,-1) or heads(0), found {part!r}")
    return match[1], tuple((int(each[1]), int(each[2] or each[1])) for each in bounds)


def parse_value(text):
    if text in ("true", "false"):
        return text == "true"
    if text.endswith("%"):
        return float(text[:-1]) / 100
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
