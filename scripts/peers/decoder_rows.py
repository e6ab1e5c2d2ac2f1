"""What the decoder is measured at, beside llama.cpp: prefill, decoding after contexts of several lengths, and the page
types of both. A scene is {session name: Session} and the rows made of it. gguf: {form of our weights: llama.cpp's file}."""

from turns import Row, Session

# The model ends at 8,192 positions: the longest context leaves room for the steps.
DEPTHS = {2048: 2048, 8192: 8128}
STEPS = 8
# Both hold 8.5 and 4.5 bits a number.
PAGES = {"f16": ("dense(f16)", "f16"), "8-bit": ("quant(bits=8)", "q8_0"), "4-bit": ("quant(bits=4)", "q4_0")}


def rate(session, fact="tokens"):
    return lambda seconds, facts: facts[session][fact] / seconds[session]


def scenes(model, gguf, threads, depth):
    """Those after a long context of `depth` tokens, or (None) all that need none."""
    if depth is not None:
        return [deep(model, gguf, depth, threads)]
    return ([prefill(model, gguf, tokens, threads) for tokens in (512, 2048)] +
            [short(model, gguf, batch, threads) for batch in (1, 8)] + [int8_weights(model, gguf, threads)])


def ours(model, operation, threads, weights="bf16", **settings):
    return Session("turns", operation, {"weights": weights, "threads": threads, "model": model, **settings})


def llama(gguf, operation, threads, weights="bf16", **settings):
    return Session("peer_llama", operation, {"threads": threads, "gguf": gguf[weights], **settings})


def probe(operation, threads, **settings):
    return Session("turns", operation, {"threads": threads, **settings})


def prefill(model, gguf, tokens, threads):
    sessions = {"ours": ours(model, "prefill", threads, tokens=tokens),
                "llama.cpp": llama(gguf, "prefill", threads, tokens=tokens),
                "probe": probe("layer_products", threads, tokens=tokens, type="bf16", model=model)}
    return sessions, [Row(f"prefill {tokens:,} tokens, bf16 weights / llama.cpp", "tokens/s", threads, rate("ours"),
                          rate("llama.cpp"), limit=rate("probe"), probe="probe", must=4.0)]


def read_limit(seconds, facts):  # all weights are read once a step, whatever the batch
    bandwidth = facts["probe"]["bytes"] / seconds["probe"]
    return facts["ours"]["tokens"] * bandwidth / facts["ours"]["weight_bytes"]


def short(model, gguf, batch, threads):
    sessions = {"ours": ours(model, "decode", threads, depth=0, steps=STEPS, batch=batch),
                "llama.cpp": llama(gguf, "decode", threads, depth=0, steps=STEPS, batch=batch),
                "probe": probe("read", threads, bytes=256 << 20)}
    many = f", {batch} sequences" if batch > 1 else ""
    return sessions, [Row(f"decode, short cache{many}, bf16 weights / llama.cpp", "tokens/s", threads, rate("ours"),
                          rate("llama.cpp"), limit=read_limit, probe="probe", must=1.3)]


def int8_weights(model, gguf, threads):
    sessions = {"ours": ours(model, "decode", threads, "int8", depth=0, steps=STEPS),
                "bf16": ours(model, "decode", threads, depth=0, steps=STEPS),
                "llama.cpp": llama(gguf, "decode", threads, "int8", depth=0, steps=STEPS),
                "probe": probe("read", threads, bytes=128 << 20)}
    common = {"unit": "tokens/s", "threads": threads, "ours": rate("ours"), "limit": read_limit, "probe": "probe"}
    return sessions, [Row("decode, short cache, int8 weights / llama.cpp Q8_0", peer=rate("llama.cpp"), **common),
                      Row("decode, short cache, int8 weights / our bf16 weights", peer=rate("bf16"), **common)]


def deep(model, gguf, depth, threads):
    at = {"depth": DEPTHS[depth], "steps": STEPS}
    sessions = {"ours 0": ours(model, "decode", threads, depth=0, steps=STEPS),
                "llama.cpp 0": llama(gguf, "decode", threads, depth=0, steps=STEPS)}
    for pages, (recipe, kv) in PAGES.items():
        sessions[f"ours {pages}"] = ours(model, "decode", threads, recipe=recipe, **at)
        sessions[f"llama.cpp {pages}"] = llama(gguf, "decode", threads, kv=kv, **at)
    sessions["probe"] = probe("read", threads, bytes=256 << 20)
    return sessions, list(deep_rows(depth, threads))


def deep_rows(depth, threads):
    def limit(pages):
        def of(seconds, facts):
            bandwidth = facts["probe"]["bytes"] / seconds["probe"]
            mine = facts[f"ours {pages}"]
            return mine["tokens"] * bandwidth / (mine["weight_bytes"] + mine["kv_bytes"])
        return of

    def attention(program):  # what the context adds to a step
        def of(seconds, facts):
            added = seconds[f"{program} f16"] - seconds[f"{program} 0"]
            return facts[f"{program} f16"]["tokens"] / added if added > 0 else float("inf")
        return of

    def attention_limit(seconds, facts):
        bandwidth = facts["probe"]["bytes"] / seconds["probe"]
        return facts["ours f16"]["tokens"] * bandwidth / facts["ours f16"]["kv_bytes"]

    at = f"decode at {depth:,} tokens"
    common = {"unit": "tokens/s", "threads": threads, "probe": "probe"}
    for pages, (_, kv) in PAGES.items():
        yield Row(f"{at}, {pages} pages / llama.cpp {kv}", ours=rate(f"ours {pages}"), peer=rate(f"llama.cpp {pages}"),
                  limit=limit(pages), must=1.5 if pages == "f16" else 2.0, **common)
    yield Row(f"{at}, attention alone, f16 / llama.cpp", ours=attention("ours"), peer=attention("llama.cpp"),
              limit=attention_limit, must=3.0, **common)
    for pages in ("8-bit", "4-bit"):
        yield Row(f"{at}, {pages} pages / our f16 pages", ours=rate(f"ours {pages}"), peer=rate("ours f16"), must=1.0,
                  **common)
