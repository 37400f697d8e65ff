"""Tokenizers of every kind that models have, each trained in a moment on a few sentences.

`TOKENIZERS` names them; `toy_tokenizer(name)` makes one. All of them have the special tokens <s>, </s>, <|user|>,
<|assistant|>, <|system|>, <|end|>.
"""

from __future__ import annotations

from functools import cache
from typing import Any

CORPUS = [
    "The quick brown fox jumps over the lazy dog. " * 3,
    "Question: What is the capital of France? Answer: Paris",
    "A B C D E yes no true false maybe [user] [assistant] User: Assistant: ### Instruction ### Response",
    "naïve café Ünïcödé 日本語 テスト 🙂🙃 العربية",
    "Text  with   spaces\nand\n\nnew lines\ttabs",
    '3.5 1,000 -7 42 100% He said: "don\'t" (it\'s) [ok] {x} <y>',
    "Berlin Madrid Rome London is was are were in on at of and or",
] * 20
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TOKENIZERS = (
    "byte_bpe", "byte_bpe_bos", "byte_bpe_bos_eos", "byte_bpe_space", "byte_bpe_space_bos", "llama3_like",
    "unigram_always_bos", "unigram_always", "unigram_first_bos", "unigram_never_bos", "llama_legacy_bos", "wordpiece",
)  # fmt: skip


@cache
def toy_tokenizer(name: str) -> Any:
    """The tokenizer of that name, as transformers loads such ones; padding on the left."""
    from transformers import PreTrainedTokenizerFast

    made = _wordpiece() if name == "wordpiece" else _made(name)
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    if "bos" in name or name == "llama3_like":
        names["bos_token"] = "<s>"
    if name == "wordpiece":
        names |= {"cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, padding_side="left", additional_special_tokens=SPECIAL[4:], **names
    )


def _made(name: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if name.startswith("unigram"):
        scheme = name.split("_")[1]
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        made.decoder = decoders.Metaspace(prepend_scheme=scheme)
        trainer: Any = trainers.UnigramTrainer(vocab_size=260, special_tokens=SPECIAL, unk_token="<unk>")
    elif name.startswith("llama_legacy"):
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        bytes_ = [f"<0x{number:02X}>" for number in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=[*SPECIAL, *bytes_])
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space="space" in name)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator(CORPUS, trainer)
    if "bos" in name or name == "llama3_like":
        around = f"<s> $A{' </s>' if 'eos' in name else ''}"
        made.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
    return made


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return made


# How chats are written: with turns of special tokens or of text, a first token, a default system turn.
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "bos": (
        "<s>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "blank": (
        "{% for m in messages %}{{ '<s>' if loop.first else '' }}[{{ m.role }}] {{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    ),
    "mistral": (
        "<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>{% else %}[INST] {{ m.content }} "
        "[/INST]{% endif %}{% endfor %}"
    ),
    "colon": (
        "{% for m in messages %}[{{ m.role }}]: {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]:{% endif %}"
    ),
    "default_system": (
        "{% if messages[0].role != 'system' %}<|system|>Be kind.<|end|>\n{% endif %}{% for m in messages %}"
        "<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "words": (
        "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant: {% endif %}"
    ),
    "headers": (
        "{% for m in messages %}### {{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant\n{% endif %}"
    ),
}
