#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizers: small tokenizers of every kind that kvanalyze reads, each with the ids and
texts that Hugging Face's tokenizers gives for strings chosen to be difficult.

    pip install tokenizers jinja2
    scripts/make_tokenizer_fixtures.py [--output tests/fixtures/tokenizers]

The result depends on nothing but this file and the versions of the two packages, which it records.
"""
import argparse
import json
import pathlib

import jinja2
import jinja2.sandbox
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

CORPUS = [
    "The cache keeps a key and a value for every token, and the same page of keys comes again and again.",
    "She said that they're sure it's fine; I'll wait, you'd better not, we've seen what he'd do and I'm done.",
    "for (int i = 0; i < 10; ++i) {\n    total += values[i] * 3.14;\n}\n\n\treturn total;  // 2024, 365 days",
    "Der Fluß führt früh über die Brücke, où l'été était déjà là; señor, ¿qué tal? naïve café.",
    "Быстрый поезд идёт в город. Η γάτα κοιμάται. 今天天气很好，我们去公园。 東京タワー 안녕하세요 세계",
    "the then there these those with without within token tokens tokenizer analysis analyze page pages " * 4,
] * 3

CASES = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "a", " a", "a ", " a ", "  a  b   c    ",
    "Hello, world!", " Hello World", "I'LL say it's HE'D we'Ve don't ’tis", "'s't're've'm'll'd", "' era",
    "3 33 333 3333 33333 1234567890", "½ ² Ⅷ ٣ ৪ 一二三", "x=1;\ny = 22 ;\n\n\n  z\t=\t333\r\n\r\n",
    "trailing   ", "   leading", "in  the   middle", "tabs\t\tand\t spaces \t", "line\n   \n indent\n\n\n\n",
    "über Straße ǅ ǆ ſ K Å", "e\u0301 \u00e9 n\u0303 \u1e9b\u0323 \ufb01 \uac00 \u1100\u1161 \u0958",
    "A\u030a\u0327 \u212b \u2126 q\u0323\u0307 q\u0307\u0323", "नमस्ते दुनिया ที่นี่ កាន់តែ עִבְרִית مرحبا",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ✅ \U0001f9d9\u200d\u2640\ufe0f", "\u00a0nbsp\u2003em\u3000ideographic\u2028ls\u2029ps\u0085nel",
    "\u180evowel\u200bzero\ufeffbom\u00adsoft", "\u0000\u0001\u0004\u001b\u007f\u0080", "\ufffd \uffff \U0010ffff \ue000",
    "▁▁ ▁a a▁b ▁", "Ġ Ċ ġ Ā", "<0x0A> <0xFF>", "\\n \\u0041 \"quoted\" {json: [1, 2]}",
    "snake_case camelCase kebab-case http://a.b/c?d=e&f#g user@example.com", "!!!...???---===///", "...a!!!b,,,",
    "今天天气很好，我们去公园。东京", "안녕하세요 세계", "Быстрый поезд", "Η γάτα κοιμάται",
    "the tokenizer analysis of pages and tokens without these", "a" * 300, "ab " * 100, " " * 70 + "x", "\n" * 40,
    "<s>", "<s>Hello</s>", "a<s> b </s>c", "<s><s></s>", "<|end|>", "x <|end|> y", "<|endx|> <|end", "[MASK]",
    "a [MASK] b", "  [MASK]  b", "[R]  c [R]d", "cat concat cat.cat cats cat", " cat ", "naïve café",
    "cafe\u0301 café CAFÉ", "ﬁ① ｆｕｌｌ", "\u0344 \u0f73",
]


def split_pattern(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)


def byte_level(use_regex=True, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def trained(pre_tokenizer, vocab_size, special, normalizer=None, alphabet=True):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=letters, show_progress=False))
    return tokenizer


def special(*texts):
    return [AddedToken(text, special=True, normalized=False) for text in texts]


def gpt2():
    tokenizer = trained(byte_level(), 420, ["<|end|>"])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def llama3():
    tokenizer = trained(pre_tokenizers.Sequence([split_pattern(LLAMA3), byte_level(False)]), 450, ["<s>", "</s>"])
    # A token that no merge gives: only ignore_merges finds it.
    state = json.loads(tokenizer.to_str())
    state["model"]["ignore_merges"] = True
    state["model"]["vocab"]["ĠÐĳÑĭÑģÑĤÑĢÑĭÐ¹"] = len(state["model"]["vocab"])
    state["model"]["vocab"]["Hello"] = len(state["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.ByteLevel()
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)])])
    return tokenizer


def qwen2():
    tokenizer = trained(pre_tokenizers.Sequence([split_pattern(QWEN2), byte_level(False)]), 430, ["<|end|>"],
                        normalizers.NFC())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("café", normalized=True)])
    return tokenizer


def smollm2():
    """Like SmolLM2's: some bytes have no token, and there is no unknown token."""
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
    tokenizer = trained(pre_tokenizer, 300, ["<|end|>", "<s>"], alphabet=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def roberta():
    tokenizer = trained(byte_level(prefix=True), 400, ["<s>", "</s>", "[MASK]"])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("[R]", rstrip=True, normalized=False),
                          AddedToken("cat", single_word=True, normalized=False)])
    return tokenizer


def sentencepiece_like(extra, byte_tokens=True):
    """The vocabulary and merges of Llama 2's kind: <unk>, <s>, </s>, 256 bytes, then characters and merges."""
    learnt = trained(pre_tokenizers.Metaspace(), 320, [], alphabet=False)
    state = json.loads(learnt.to_str())["model"]
    texts = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] * byte_tokens
    known = sorted(state["vocab"], key=state["vocab"].get)
    texts += [text for text in known if len(text) > 1 or ord(text) < 0x2600]
    vocab = {text: i for i, text in enumerate(texts)}
    merges = [pair for pair in map(tuple, state["merges"])
              if all(text in vocab for text in (*pair, "".join(pair)))]
    return Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", **extra))


def with_template(tokenizer):
    tokenizer.add_special_tokens(special("<unk>", "<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def llama_decoder():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                              decoders.Strip(" ", 1, 0)])


def llama2():
    tokenizer = with_template(sentencepiece_like({"fuse_unk": True, "byte_fallback": True}))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = llama_decoder()
    return tokenizer


def mistral():
    tokenizer = with_template(sentencepiece_like({"fuse_unk": True, "byte_fallback": True}))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = llama_decoder()
    return tokenizer


def metaspace():
    """No byte fallback: unknown characters become <unk>, fused."""
    tokenizer = with_template(sentencepiece_like({"fuse_unk": True}, byte_tokens=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    return tokenizer


def splits():
    """Every behavior of Split, and a normalizer with a regular expression."""
    tokenizer = trained(byte_level(), 380, ["<|end|>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"(.)\1{9,}"), "~")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\n+"), "removed"),
        pre_tokenizers.Split(",", "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"[-=]"), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"[!?]"), "contiguous"),
        pre_tokenizers.Split(Regex(r"\p{Lu}\p{Ll}+|[^\p{Lu}]+"), "isolated", invert=True),
        pre_tokenizers.Digits(individual_digits=False), byte_level(False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZERS = [gpt2, llama3, qwen2, smollm2, roberta, llama2, mistral, metaspace, splits]

# Templates written for these tests in the manner of the published ones.
CHAT_TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
              "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "chatml-default-system":
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nYou keep answers short.\\nBe kind.<|im_end|>\\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama-3":
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "llama-3.1":
        "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}"
        "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
        "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' }}"
        "{{- 'Today Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' }}{%- for message in messages %}"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + "
        "'<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
        "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}",
    "llama-2":
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
        "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for message in rest %}"
        "{% if loop.index0 == 0 and system %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + "
        "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}"
        "{% else %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}",
    "mistral":
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}"
        "{% endif %}{% endfor %}",
    "mistral-tight":
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST]' + message['content'] + '[/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}"
        "{% endif %}{% endfor %}",
    "zephyr":
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + "
        "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
        "{% else %}\n{{ '<|assistant|>\\n' + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
}

USER = {"role": "user", "content": " What is a page?\n"}
ANSWER = {"role": "assistant", "content": "Sixteen tokens."}
AGAIN = {"role": "user", "content": "Thanks"}
SYSTEM = {"role": "system", "content": "Be exact."}


def chat_cases():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    cases = []
    for name, text in CHAT_TEMPLATES.items():
        conversations = [[USER], [USER, ANSWER, AGAIN]]
        if not name.startswith("mistral"):
            conversations += [[SYSTEM, USER], [SYSTEM, USER, ANSWER, AGAIN]]
        for messages in conversations:
            for prompt in (False, True):
                rendered = environment.from_string(text).render(
                    messages=messages, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
                cases.append({"template": name, "messages": messages, "add_generation_prompt": prompt,
                              "expected": rendered})
    return cases


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--output", type=pathlib.Path, default=root / "tests/fixtures/tokenizers")
    output = parser.parse_args().output
    for make in TOKENIZERS:
        tokenizer = Tokenizer.from_str(make().to_str())
        cases = []
        beyond_ascii = {id for id, token in tokenizer.get_added_tokens_decoder().items() if not token.content.isascii()}
        for text in CASES:
            ids = tokenizer.encode(text).ids
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            case = {"text": text, "ids": ids, "plain": plain}
            # The ByteLevel decoder takes the characters of such an added token for bytes: not a text to agree with.
            if not beyond_ascii.intersection(ids):
                case["decoded"] = tokenizer.decode(ids, skip_special_tokens=False)
                case["skipped"] = tokenizer.decode(ids, skip_special_tokens=True)
            cases.append(case)
        write(output / make.__name__ / "tokenizer.json", json.loads(tokenizer.to_str()))
        write(output / make.__name__ / "cases.json", {"tokenizers": tokenizers.__version__, "cases": cases})
    write(output / "chat.json", {"jinja2": jinja2.__version__, "templates": CHAT_TEMPLATES, "cases": chat_cases()})


if __name__ == "__main__":
    main()
