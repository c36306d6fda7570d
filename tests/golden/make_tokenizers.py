#!/usr/bin/env python3
"""Small tokenizers of several families, trained here, with the ids and texts that Hugging Face tokenizers gives for hard strings.

    python tests/golden/make_tokenizers.py        # writes tests/golden/tokenizers/*.json

Each file: {"peer": name and version, "tokenizer": a whole tokenizer.json, "cases": [{"text", "ids", "special", "decoded", "skipped"}]}
ids without and special with the post-processor's tokens; decoded of ids, skipped of special without special tokens.
"""
import json
import pathlib

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/tokenizers"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CORPUS = (ROOT / "pipelines/data/general.txt").read_text().splitlines()[:40] + [
    "don't I'LL we've 1234567 3.14 na\u00efve caf\u00e9 \u6771\u4eac \U0001f600 \u0928\u092e\u0938\u094d\u0924\u0947", "a\tb\r\n\r\n  indented   code();\n"]
CASES = [
    "", " ", "  ", "\n", "Hello, world!", " leading", "trailing ", "a  b   c", "tabs\tand\nnew\r\nlines\n\n\n  x", "don't we'll I'VE it'S",
    "12 345 6789 1234567890", "x1y22z333", "na\u00efve cafe\u0301 \u212b \ufb01", "\u6771\u4eac\u306f\u65e5\u672c", "\U0001f600\U0001f468\u200d\U0001f469 ok",
    "<s>begin</s>", "a<s> b </s>c", "pre <mask> post", "<mask><mask>", "x<|tool|>y <|tool|> z", "under_score <word> sub<word>s <word>",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0661\u0662\u0663", "\u00a0nbsp\u2003em\u3000wide", "....!!!??", "a" * 60, "the " * 12, "\u2581under\u2581 \u2581", "$1,000.50 (50%) #1 @x",
    "Stra\u00dfe \u0130stanbul \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\x00nul\x01 ctl\x7f",
]


def golden(name, tok):
    cases = []
    for text in CASES:
        ids, special = tok.encode(text, add_special_tokens=False).ids, tok.encode(text).ids
        cases.append({"text": text, "ids": ids, "special": special, "decoded": tok.decode(ids, skip_special_tokens=False), "skipped": tok.decode(special)})
    rows = ",\n".join(json.dumps(c) for c in cases)
    text = tok.to_str()
    (OUT / f"{name}.json").write_text(f'{{"peer": "tokenizers {tokenizers.__version__}",\n"tokenizer": {json.dumps(json.loads(text))},\n"cases": [\n{rows}\n]}}\n')


def train(tok, vocab, special, alphabet=()):
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, initial_alphabet=list(alphabet), show_progress=False))
    return tok


def template(tok, single="<s> $A", names=("<s>",)):
    return processors.TemplateProcessing(single=single, pair=f"{single} $B", special_tokens=[(n, tok.token_to_id(n)) for n in names])


def added(tok):
    tok.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=False, special=True)])
    tok.add_tokens([AddedToken("<|tool|>", rstrip=True), AddedToken("<word>", single_word=True)])


BYTES = pre_tokenizers.ByteLevel.alphabet()


def gpt2():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    train(tok, 360, ["<s>", "</s>"], BYTES)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    added(tok)
    golden("gpt2", tok)


def roberta():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    train(tok, 360, ["<s>", "</s>"], BYTES)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = template(tok, "<s> $A </s>", ("<s>", "</s>"))
    added(tok)
    golden("prefix_space", tok)


def digits():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    train(tok, 360, ["<s>", "</s>"], BYTES)
    tok.decoder = decoders.ByteLevel()
    golden("smollm", tok)


def split(name, pattern, ignore, norm=None):
    tok = Tokenizer(models.BPE(ignore_merges=ignore))
    tok.normalizer = norm
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    train(tok, 360, ["<s>", "</s>"], BYTES)
    if ignore:  # whole words that no merge makes: they are taken as they are
        o = json.loads(tok.to_str())
        for word in ("\u0120world", "Hello", "\u0120leading"):
            o["model"]["vocab"][word] = len(o["model"]["vocab"])
        tok = Tokenizer.from_str(json.dumps(o))
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template(tok)])
    added(tok)
    golden(name, tok)


def spm_decoder():
    return decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def byte_vocab(tok, unk="<unk>"):
    o = json.loads(tok.to_str())
    vocab = o["model"]["vocab"]
    for b in range(256):
        vocab[f"<0x{b:02X}>"] = len(vocab)
    o["model"].update(byte_fallback=True, unk_token=unk, fuse_unk=True)
    return Tokenizer.from_str(json.dumps(o))


def llama2_legacy():
    """Normalizer Prepend and Replace, no pre-tokenizer: the whole text is one pre-token."""
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tok = byte_vocab(train(tok, 260, ["<unk>", "<s>", "</s>"]))
    tok.pre_tokenizer = None
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok.decoder = spm_decoder()
    tok.post_processor = template(tok)
    golden("llama2", tok)


def metaspace(scheme, cut):
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tok = byte_vocab(train(tok, 260, ["<unk>", "<s>", "</s>"]))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=cut)
    tok.decoder = spm_decoder()
    tok.post_processor = template(tok)
    golden(f"metaspace_{scheme}{'_split' if cut else ''}", tok)


def words():
    """Unknown characters without byte fallback; a normalizer that changes much; punctuation and white space."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), normalizers.Replace(Regex("[\u0300-\u036f]"), ""), normalizers.Strip()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Punctuation()])
    train(tok, 200, ["<unk>", "<s>", "</s>"])
    golden("words", tok)


def behaviors():
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            tok = Tokenizer(models.BPE())
            tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[a-m.]"), behavior, invert), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
            train(tok, 340, ["<s>", "</s>"], BYTES)
            tok.decoder = decoders.ByteLevel()
            yield f"{behavior}{'_inverted' if invert else ''}", tok


OUT.mkdir(exist_ok=True)
gpt2()
roberta()
digits()
split("llama3", LLAMA3, True)
split("qwen2", QWEN2, False, normalizers.NFC())
llama2_legacy()
metaspace("first", False)
metaspace("always", True)
metaspace("never", True)
words()
for name, tok in behaviors():
    golden("split_" + name, tok)
