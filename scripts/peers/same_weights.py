"""Shows that llama.cpp and ours run the same weights: the logits of both on one text."""

import os
import tempfile

import numpy as np

from turns import Session

TEXT = """The valley had been under water once, and the farmers who ploughed it still turned up shells. In the spring of 1911 a
surveyor named Halloran walked its length with a chain and a notebook, measuring what the railway would need: three
bridges, two cuttings and a tunnel of four hundred yards. He wrote down the depth of every stream, the price of timber in
each village and the names of those who would not sell. Twenty years later the notebook was found in a drawer of the
company's office. It listed eleven farms, and beside each stood a number that nobody could explain. A teacher at the
school believed that they were years; her pupils, who had read about ciphers, believed that they were letters. Both were
wrong. The numbers were the distances, in feet, from each farmhouse door to the nearest well, and Halloran had noted them
because he was thirsty."""


def compare(ask, model, gguf, weights):
    """(share of tokens with the same most likely next token, largest difference of a logit)."""
    from tokenizers import Tokenizer

    ids = np.array(Tokenizer.from_file(os.path.join(model, "tokenizer.json")).encode(TEXT).ids, dtype=np.int32)
    with tempfile.TemporaryDirectory() as folder:
        ids.tofile(os.path.join(folder, "ids"))
        common = {"tokens": os.path.join(folder, "ids"), "threads": os.cpu_count()}
        logits = []
        for session in (Session("turns", "logits", {"model": model, "weights": weights, **common}),
                        Session("peer_llama", "logits", {"gguf": gguf, **common})):
            session.settings["out"] = os.path.join(folder, session.program)
            for command in ("prepare", "turn", "drop"):
                ask("logits", session, command)
            logits.append(np.fromfile(session.settings["out"], dtype=np.float32).reshape(len(ids), -1))
    same = (logits[0].argmax(1) == logits[1].argmax(1)).mean()
    return len(ids), same, np.abs(logits[0] - logits[1]).max()


def report(ask, model, gguf, weights="bf16"):
    tokens, same, difference = compare(ask, model, gguf, weights)
    return (f"the same weights ({weights}) in both: on {tokens} tokens of text the most likely next token agrees at "
            f"{same:.1%}, logits differ by at most {difference:.3g}")
