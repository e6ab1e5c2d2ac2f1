"""results.jsonl files for the dashboard's tests: made-up trials of a few strategies, the same at every call."""
import json
import pathlib
import random

# Name, recipe, share of the tokens kept, bits a number, KL, time a token against Baseline's.
STRATEGIES = [
    ("Baseline", "dense(f16)", 1.0, 16, 0.0, 1.0),
    ("Random(keep=0.5)", "random(keep=0.5)@seal", 0.5, 16, 0.9, 0.95),
    ("H2O(keep=0.5,recent=0.1)", "h2o(keep=0.5,recent=0.1)@seal", 0.5, 16, 0.06, 1.1),
    ("SnapKV(window=32,kernel=7,capacity=128)", "snapkv(window=32,kernel=7,capacity=128)@prefill", 0.45, 16, 0.05, 0.93),
    ("AttentionSink(sink=4,window=64)", "sink(sink=4,window=64)@seal", 0.3, 16, 0.4, 0.9),
    ("quant(4)", "quant(bits=4)@seal", 1.0, 4.6, 0.03, 1.2),
]
MODELS = ["smollm2-135m", "opt-125m"]
SETS = ["general", "code"]
WORDS = ("the cache holds pages of tokens and a policy drops those that nobody reads while sinks stay where they are "
         "because attention leans on them").split()


def trial(number, model, strategy, prompt_set, sample, rng, prompt_tokens=200, generated=40, layers=6):
    name, recipe, keep, bits, kl, speed = strategy
    token_bytes = 2 * layers * 3 * 64 * bits / 8
    chunks = [64 * (i + 1) for i in range(prompt_tokens // 64)] + [prompt_tokens]
    tokens = sorted(set(chunks)) + [prompt_tokens + i for i in range(1, generated)]
    kept = [max(min(t, 48), keep * t) for t in tokens]
    scatter = lambda spread: 1 + spread * (rng.random() - 0.5)
    times = [round(0.01 * speed * scatter(0.3), 6) for _ in range(generated)]
    base = 8 + 3 * rng.random()
    this_kl = kl * scatter(0.8)
    held = kept[-1] * token_bytes
    words = [rng.choice(WORDS) for _ in range(generated)]
    text = " ".join(WORDS[i % len(WORDS)] if rng.random() > min(0.8, kl) else word for i, word in enumerate(words))
    row = {
        "trial": f"{number:016x}", "experiment": "strategies side by side", "mode": "generate", "model": {"name": model, "identity": "wheel 0.1.2"},
        "strategy": name, "recipe": recipe, "prompt_set": prompt_set, "sample": str(sample), "context_length": None, "repeat": 0, "seed": 0, "device": "cpu",
        "batch_size": 1, "page_size": 16, "started": "2026-11-21T13:00:00Z", "status": "ok", "prompt_tokens": prompt_tokens, "generated_tokens": generated,
        "turns": [{"prompt": f"Question {sample} of the {prompt_set} prompts: what does the cache hold?", "text": text, "tokens": generated},
                  {"prompt": "And the second turn?", "text": text[::-1], "tokens": generated}],
        "timing": {"prefill_s": 0.4 * scatter(0.2), "first_token_s": 0.41 * scatter(0.2), "generation_s": sum(times), "total_s": 0.5 + sum(times), "codec_s": 0.01,
                   "observe_s": 0.002, "token_s": times},
        "steps": {"tokens": tokens, "cache_tokens": kept, "bytes": [round(k * token_bytes) for k in kept]},
        "layers": {"bytes": [round(held / layers * scatter(0.1)) for _ in range(layers)], "tokens": [kept[-1]] * layers},
        "ledger": {"payload": round(held), "scales": 1000, "side": 0, "tables": 2000, "slack": 3000, "workspace": 50000, "peak": round(1.1 * held + 6000)},
        "process_peak_bytes": 700_000_000, "counters": {}, "remarks": [], "unknown_to_readers": {"x": [1]},
    }
    if name != "Baseline":
        row["quality"] = {"perplexity": base * (1 + this_kl), "perplexity_base": base, "kl_mean": this_kl, "kl_max": 6 * this_kl, "top1_agreement": max(0.2, 1 - 0.6 * this_kl),
                          "rouge_l": max(0.1, 1 - 0.7 * this_kl), "edit_distance": round(30 * min(1, this_kl)), "scored_tokens": generated}
        if keep < 1:
            row["counters"] = {f"{name.split('(')[0].lower()}.dropped_tokens": round((tokens[-1] - kept[-1]) * layers * 3), f"{name.split('(')[0].lower()}.dropped_recent": rng.randrange(50)}
    return row


def rows(samples=10, models=MODELS, failures=True):
    rng = random.Random(5)
    made = []
    for model in models:
        for prompt_set in SETS:
            for sample in range(samples):
                lengths = {"prompt_tokens": rng.choice([150, 200, 260]), "generated": 40}
                for strategy in STRATEGIES:
                    made.append(trial(len(made), model, strategy, prompt_set, sample, rng, **lengths))
    if failures:
        for number in (8, 9):
            broken = made[number]
            for key in ("turns", "timing", "steps", "layers", "ledger", "quality", "counters"):
                broken.pop(key, None)
            broken |= {"status": "failed", "error": "out of memory: the cache needs 2.0 GiB, 1.5 GiB are free"}
    return made


def write(folder, made):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return folder


if __name__ == "__main__":
    import sys
    write(sys.argv[1], rows())
