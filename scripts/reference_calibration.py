"""What methods of scripts/reference_quant.py that learn see: pages of a calibration text, and its tokens' attention."""

import json
import pathlib

import numpy as np

from reference_cache import SIDES, Cache

PROMPTS = pathlib.Path(__file__).parent.parent / "reports" / "prompts" / "general.jsonl"
TOKENS = 4096
STEP = 256


def built_in_text():
    """The general prompts, an empty line after each."""
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    return "".join(json.loads(line)["text"] + "\n\n" for line in lines if line.strip())


class Sample:
    """Full pages of f16 caches, in the key basis, of the text in sequences of at most `context` tokens.

    pages[side]: [layers, kv_heads, pages, page_tokens, head_dim]; mass: [layers, kv_heads, pages, page_tokens], the
    attention that a token received from all queries of its sequence, those of a KV head averaged.
    """

    def __init__(self, model, ids, context, page_tokens, key_basis):
        parts = [self.of_sequence(model, ids[at:at + context], page_tokens, key_basis)
                 for at in range(0, len(ids), context)]
        joined = [np.concatenate(of, axis=2) for of in zip(*parts)]
        self.pages, self.mass = dict(zip(SIDES, joined)), joined[2]

    @staticmethod
    def of_sequence(model, ids, page_tokens, key_basis):
        cache = Cache(model, len(ids), page_tokens, "f16", key_basis)
        cache.mass = np.zeros((model.layers, model.kv_heads, len(ids)))
        for first in range(0, len(ids), STEP):
            model.step(ids[first:first + STEP], [cache])
        full = len(ids) // page_tokens
        return [of[:, :, :full * page_tokens].reshape(*of.shape[:2], full, page_tokens, *of.shape[3:])
                for of in (cache.stored["k"], cache.stored["v"], cache.mass)]
