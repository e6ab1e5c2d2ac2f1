"""Recipes that cannot be, and pages that no method can store: one clear line, exit code 1, nothing written."""
import pathlib
import shutil
import sys
import tempfile

try:
    import numpy as np
    from safetensors.numpy import load_file, save_file
except ImportError:
    print("numpy or safetensors is not installed; skipped")
    sys.exit(77)

from harness import check, expect_refusal, finish, random_model, run

work = pathlib.Path(tempfile.mkdtemp(prefix="kvanalyze-hostile-recipe-"))
model = random_model(work / "model", "--family", "llama", "--layers", 2, "--heads", 4, "--kv-heads", 2)
prompt = ["--prompt-ids", " ".join(str(5 + i * 7 % 90) for i in range(150)), "--max-tokens", 2, "--quiet"]


def refused(label, recipe, *mentions, folder=model):
    expect_refusal(label, "generate", "--model", folder, *prompt, "--recipe", recipe, mentions=mentions)


# Names: the nearest known one is offered.
refused("method", "quantt(4)", "quantt", "quant")
refused("parameter", "quant(bitz=4)", "bitz", "bits")
refused("word", "quant(axes=kiwi)", "kiwi", "kivi")
refused("selector", "layer(0): quant(4)", "layer")
refused("trigger", "quant(4)@sometimes", "sometimes")
refused("layer", "layers(7): quant(4)", "7", "0 to 1")
refused("head", "heads(2): quant(4)", "2", "0 to 1")
refused("twice", "layers(0): quant(4) ; layers(0-1): quant(8)", "layer 0")
# Numbers.
refused("0 bits", "quant(bits=0)", "bits", "2, 3, 4 or 8")
refused("5 bits", "quant(bits=5)", "bits", "2, 3, 4 or 8")
refused("endless bits", "quant(bits=99999999999999999999999999)", "bits")
refused("nan", "dedup(cos=nan)", "cos")
refused("infinite", "dedup(cos=inf)", "cos")
refused("share over one", "quant(outliers=1.5)", "outliers")
refused("negative", "evict(keep=-1)", "keep")
refused("rank 0", "lowrank(rank=0)", "rank")
refused("absurd rank", "lowrank(rank=1000000)", "rank", "16")
refused("fewer tokens than rank", "lowrank(rank=16,fit_tokens=4)", "fit_tokens", "16")
refused("start behind the last layer", "minicache(start=9)", "start", "9")
refused("budget below the formats", "budget(bits=0.1)", "calibration")
refused("page parts", "pq(m=7)", "m=7", "divisor of 16")
refused("two sizes", "budget(bits=4,ratio=4)", "one of")
# What does not fit together.
refused("rotation before RoPE", "keys(plain); quant(bits=4,rotate=true)", "rotate", "keys(plain)")
refused("turboquant before RoPE", "keys(plain); turboquant", "keys(plain)")
refused("two key bases", "keys(plain); keys(rotated); quant(4)", "keys")
refused("other side", "side(k): merge(keep=0.5)", "merge")
refused("rank and energy", "lowrank(rank=0.5,energy=0.9)", "energy")
# Text.
refused("empty", ";", "recipe")
refused("unclosed", "quant(4", ")")
refused("deep", "(" * 5000, "recipe")
refused("long", "quant(4) | " * 8000 + "quant(4)", "recipe")
refused("controls", "quant(\x1b[31m4)", "recipe")
refused("pipeline", " | ".join(["quant(4)"] * 40), "steps")

# Pages that hold no numbers: named by layer, head and side, whichever method meets them.
spoilt = work / "spoilt"
shutil.copytree(model, spoilt)
tensors = load_file(spoilt / "model.safetensors")
name = "model.layers.1.self_attn.v_proj.weight"
tensors[name] = tensors[name].copy()
tensors[name][0, :] = np.nan
save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})
for recipe in ("quant(bits=4)", "quant(bits=2,axes=kivi,outliers=0.01)", "turboquant", "gear", "lowrank(rank=4,fit_tokens=16)"):
    done = run("generate", "--model", spoilt, *prompt, "--recipe", recipe)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    check(done.returncode == 1 and len(lines) == 1, f"NaN under {recipe}: {done.returncode} {done.stderr[-300:]}")

# Pages of equal numbers and denormals are numbers like others.
flat = work / "flat"
shutil.copytree(model, flat)
tensors = load_file(flat / "model.safetensors")
for layer, value in ((0, 0.0), (1, 1e-7)):
    for side in ("k_proj", "v_proj"):
        name = f"model.layers.{layer}.self_attn.{side}.weight"
        tensors[name] = np.full_like(tensors[name], value)
save_file(tensors, flat / "model.safetensors", metadata={"format": "pt"})
for recipe in ("quant(bits=2)", "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)", "turboquant", "gear", "minicache(start=0)",
               "lowrank(rank=4,fit_tokens=16)", "merge(keep=0.5,window=0)", "dedup(cos=0.98)"):
    done = run("generate", "--model", flat, *prompt, "--recipe", recipe)
    check(done.returncode == 0, f"equal numbers under {recipe}: {done.returncode} {done.stderr[-300:]}")

shutil.rmtree(work)
finish()
