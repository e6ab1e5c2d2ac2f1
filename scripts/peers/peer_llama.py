"""llama.cpp through llama-cpp-python's plain C interface: the same operations as tests/bench/turns/decoder_turns.cc.

Flash attention is on. Token ids, contexts and what is timed are the same as ours: whole steps with the logits of the
last row of each sequence, nothing sampled.
"""

import ctypes
import os
import time

import llama_cpp
import numpy as np

KV_TYPES = {"f32": llama_cpp.GGML_TYPE_F32, "f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0,
            "q4_0": llama_cpp.GGML_TYPE_Q4_0}
CHUNK = 512


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def silent(_level, _text, _data):
    pass


class Model:
    """A GGUF file, loaded once for all contexts."""

    loaded = {}

    @classmethod
    def of(cls, path):
        if path not in cls.loaded:
            cls.loaded[path] = cls(path)
        return cls.loaded[path]

    def __init__(self, path):
        llama_cpp.llama_log_set(silent, None)
        llama_cpp.llama_backend_init()
        self.handle = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.handle:
            raise RuntimeError(f"{path}: llama.cpp cannot load it")
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.handle))


class Context:
    """Sequences in one KV cache of `tokens` tokens each."""

    def __init__(self, gguf, kv, tokens, sequences=1, to_fill=False):
        self.model = Model.of(gguf)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = tokens * sequences
        params.n_batch = max(tokens * sequences, 2048)
        params.n_ubatch = CHUNK
        params.n_seq_max = sequences + to_fill  # fill() takes one for itself, in a cache that sequences share
        params.kv_unified = to_fill
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.type_k = params.type_v = KV_TYPES[kv]
        params.no_perf = True
        self.handle = llama_cpp.llama_init_from_model(self.model.handle, params)
        if not self.handle:
            raise RuntimeError("llama.cpp cannot make this context")
        self.memory = llama_cpp.llama_get_memory(self.handle)
        self.batch = llama_cpp.llama_batch_init(max(tokens, sequences), 0, 1)
        self.filled = 0

    def __del__(self):
        if getattr(self, "handle", None):
            llama_cpp.llama_batch_free(self.batch)
            llama_cpp.llama_free(self.handle)

    def threads(self, count):
        llama_cpp.llama_set_n_threads(self.handle, count, count)

    def fill(self, tokens, sequences):
        """Leaves each sequence `tokens` tokens, made where there are fewer. For contexts made to_fill. A chunk is read without those before it, as a
        sequence of its own that then joins: other numbers in the cache, which cost a later step what a text's do, and no
        minutes of attention to a long context that nobody measures."""
        self.threads(os.cpu_count())
        ids = some_tokens(tokens, self.model.vocab)
        for first in range(self.filled, tokens, CHUNK):
            for sequence in range(sequences):
                self.step([(token, first + i, sequences) for i, token in enumerate(ids[first:first + CHUNK])])
                llama_cpp.llama_memory_seq_cp(self.memory, sequences, sequence, -1, -1)
                llama_cpp.llama_memory_seq_rm(self.memory, sequences, -1, -1)
        self.cut(sequences, tokens)

    def step(self, rows, all_logits=False):
        """rows: (token, position, sequence); logits of the last row of each sequence."""
        self.batch.n_tokens = len(rows)
        last = {sequence: i for i, (_, _, sequence) in enumerate(rows)}
        for i, (token, position, sequence) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = all_logits or last[sequence] == i
        start = time.perf_counter()
        status = llama_cpp.llama_decode(self.handle, self.batch)
        llama_cpp.llama_synchronize(self.handle)
        seconds = time.perf_counter() - start
        if status != 0:
            raise RuntimeError(f"llama_decode: {status}")
        return seconds

    def cut(self, sequences, tokens):
        for sequence in range(sequences):
            llama_cpp.llama_memory_seq_rm(self.memory, sequence, tokens, -1)
        self.filled = tokens


def some_tokens(count, vocab):
    return [(100 + 7919 * i) % vocab for i in range(count)]


class Prefill:
    def __init__(self, settings):
        count = int(settings["tokens"])
        self.context = Context(settings["gguf"], "f16", count)
        self.context.threads(int(settings["threads"]))
        self.rows = [(token, i, 0) for i, token in enumerate(some_tokens(count, self.context.model.vocab))]
        self.facts = {"tokens": count}
        self.turn()

    def turn(self):
        seconds = self.context.step(self.rows)
        self.context.cut(1, 0)
        return seconds


class Decode:
    # A filled context serves all numbers of threads, and a longer one extends a shorter.
    deep = {}

    def __init__(self, settings):
        self.depth, self.steps, self.threads = (int(settings[name]) for name in ("depth", "steps", "threads"))
        self.sequences, kv = int(settings.get("batch", 1)), settings.get("kv", "f16")
        if self.depth == 0:
            self.context = Context(settings["gguf"], kv, 256, self.sequences)
        else:
            key = (settings["gguf"], kv, self.sequences)
            if key not in self.deep:
                self.deep[key] = Context(settings["gguf"], kv, 8192, self.sequences, to_fill=True)
            self.context = self.deep[key]
            self.context.fill(self.depth, self.sequences)
        self.tokens = some_tokens(self.sequences, self.context.model.vocab)
        self.facts = {"tokens": self.sequences * self.steps}
        self.turn()

    def turn(self):
        self.context.threads(self.threads)
        seconds = sum(self.context.step([(token, self.depth + step, sequence)
                                         for sequence, token in enumerate(self.tokens)])
                      for step in range(self.steps))
        self.context.cut(self.sequences, self.depth)
        return seconds


class Logits:
    """Writes the logits after each of the ids in a file, as ours does."""

    def __init__(self, settings):
        self.tokens = np.fromfile(settings["tokens"], dtype=np.int32)
        self.out = settings["out"]
        self.context = Context(settings["gguf"], "f32", len(self.tokens))
        self.context.threads(int(settings["threads"]))
        self.facts = {}

    def turn(self):
        seconds = self.context.step([(int(token), i, 0) for i, token in enumerate(self.tokens)], all_logits=True)
        logits = llama_cpp.llama_get_logits(self.context.handle)
        shape = (len(self.tokens), self.context.model.vocab)
        np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), shape).tofile(self.out)
        self.context.cut(1, 0)
        return seconds


OPERATIONS = {"prefill": Prefill, "decode": Decode, "logits": Logits}
