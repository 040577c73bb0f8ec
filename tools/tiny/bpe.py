"""Byte-level BPE of ds4-tiny: pre-tokenizer, trainer, encoder, decoder, tokenizer.json.

The pre-tokenizer is the published one (three isolated splits, then the byte alphabet), written without a
Unicode regex engine so that it runs on the standard library; ASCII text takes a fast path through `re`.
Control tokens carry the published names; their ids are ours.
"""
import json
import re
import unicodedata
from collections import Counter, defaultdict

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK = "<think>"
END_THINK = "</think>"
DSML = "｜DSML｜"
REMINDER = "<｜latest_reminder｜>"
LEADING_TOKENS = [BOS, EOS, PAD]
TRAILING_TOKENS = [
    "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", USER, ASSISTANT, "<|EOT|>", THINK, END_THINK, DSML, REMINDER,
    "<｜action｜>", "<｜query｜>", "<｜authority｜>", "<｜domain｜>", "<｜title｜>", "<｜read_url｜>",
]

_PUNCT = r"!-/:-@\[-`{-~"
_FAST = re.compile(
    r"[0-9]{1,3}"
    rf"|[{_PUNCT}][A-Za-z]+"
    rf"|[^\r\nA-Za-z0-9{_PUNCT}]?[A-Za-z]+"
    rf"| ?[{_PUNCT}]+[\r\n]*"
    r"|[ \t\x0b\x0c\r\n]*[\r\n]+"
    r"|[ \t\x0b\x0c\r\n]+(?=[0-9]|\Z)"
    r"|[ \t\x0b\x0c\r\n]+(?![^ \t\x0b\x0c\r\n])"
    r"|[ \t\x0b\x0c\r\n]+"
    r"|[^A-Za-z0-9 \t\x0b\x0c\r\n]"
)
_SPACES = set([*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])


def byte_alphabet():
    """Byte value -> character of the byte alphabet."""
    direct = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in direct}
    for shift, b in enumerate(b for b in range(256) if b not in table):
        table[b] = chr(256 + shift)
    return table


BYTE_TO_CHAR = byte_alphabet()
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


def _class_of(ch):
    if ord(ch) in _SPACES:
        return "w"
    major = unicodedata.category(ch)[0]
    return {"L": "l", "M": "m", "P": "p", "S": "p"}.get(major, "o")


def _is_cjk(ch):
    return "\u4e00" <= ch <= "\u9fa5" or "\u3040" <= ch <= "\u30ff"


def _runs(text, belongs):
    """Maximal runs of characters for which `belongs` holds, and the text between them, in order."""
    pieces, start = [], 0
    while start < len(text):
        inside, end = belongs(text[start]), start + 1
        while end < len(text) and belongs(text[end]) == inside:
            end += 1
        pieces.append((inside, text[start:end]))
        start = end
    return pieces


def _third_stage(piece):
    kinds = [_class_of(c) for c in piece]
    size, at, out, stray = len(piece), 0, [], ""

    def span(start, wanted):
        while start < size and kinds[start] in wanted:
            start += 1
        return start

    while at < size:
        ch, end = piece[at], at
        if kinds[at] == "p" and ch.isascii() and at + 1 < size and piece[at + 1].isascii() and piece[at + 1].isalpha():
            end = at + 1
            while end < size and piece[end].isascii() and piece[end].isalpha():
                end += 1
        elif kinds[at] not in "lp" and ch not in "\r\n" and at + 1 < size and kinds[at + 1] in "lm":
            end = span(at + 1, "lm")
        elif kinds[at] in "lm":
            end = span(at, "lm")
        elif kinds[at] == "p" or (ch == " " and at + 1 < size and kinds[at + 1] == "p"):
            end = span(at + 1 if ch == " " else at, "p")
            while end < size and piece[end] in "\r\n":
                end += 1
        elif kinds[at] == "w":
            end = span(at, "w")
            run = piece[at:end]
            newline = max(run.rfind("\r"), run.rfind("\n"))
            if newline >= 0:
                end = at + newline + 1
            elif end < size and end - at > 1:
                end -= 1
        if end == at:
            stray += ch
            at += 1
            continue
        if stray:
            out.append(stray)
            stray = ""
        out.append(piece[at:end])
        at = end
    return out + [stray] if stray else out


def pre_tokenize(text):
    """Pieces of plain text, within which merges may happen."""
    if text.isascii() and text.isprintable() or not any(c > "~" or (c < " " and c not in "\n\t\r") for c in text):
        return _FAST.findall(text)
    pieces = []
    for digits, run in _runs(text, lambda c: unicodedata.category(c)[0] == "N"):
        if digits:
            pieces += [run[i:i + 3] for i in range(0, len(run), 3)]
            continue
        for cjk, part in _runs(run, _is_cjk):
            pieces += [part] if cjk else _third_stage(part)
    return pieces


def train_merges(texts, merge_count):
    """Greedy BPE merges over the pieces of `texts`. Digits are never merged, so numbers stay digit by digit."""
    counts = Counter()
    for text in texts:
        counts.update(pre_tokenize(text))
    words = [(tuple(BYTE_TO_CHAR[b] for b in piece.encode()), count)
             for piece, count in counts.items() if not piece[0].isdigit()]
    pair_count, where = Counter(), defaultdict(set)
    for index, (symbols, count) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pair_count[pair] += count
            where[pair].add(index)
    merges = []
    while len(merges) < merge_count and pair_count:
        best = max(pair_count, key=lambda p: (pair_count[p], p))
        if pair_count[best] < 2:
            break
        merges.append(best)
        for index in sorted(where.pop(best)):
            symbols, count = words[index]
            for pair in zip(symbols, symbols[1:]):
                pair_count[pair] -= count
            joined, at = [], 0
            while at < len(symbols):
                if at + 1 < len(symbols) and (symbols[at], symbols[at + 1]) == best:
                    joined.append(symbols[at] + symbols[at + 1])
                    at += 2
                else:
                    joined.append(symbols[at])
                    at += 1
            words[index] = (tuple(joined), count)
            for pair in zip(joined, joined[1:]):
                pair_count[pair] += count
                where[pair].add(index)
        del pair_count[best]
        if len(merges) % 64 == 0:
            pair_count = +pair_count
    return merges


class Tokenizer:
    """Encodes rendered chat text (control tokens recognised) and plain text; immutable apart from its cache."""

    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.ranks = {m: rank for rank, m in enumerate(self.merges)}
        tokens = LEADING_TOKENS + [BYTE_TO_CHAR[b] for b in sorted(BYTE_TO_CHAR, key=lambda b: BYTE_TO_CHAR[b])]
        tokens += [a + b for a, b in self.merges]
        self.base_size = len(tokens)
        tokens += TRAILING_TOKENS
        self.tokens = tokens
        self.ids = {}
        for index, token in enumerate(tokens):
            self.ids.setdefault(token, index)
        self.control = {t: self.ids[t] for t in LEADING_TOKENS + TRAILING_TOKENS}
        self.split = re.compile("(" + "|".join(re.escape(t) for t in sorted(self.control, key=len, reverse=True)) + ")").split
        self._cache = {}

    def __len__(self):
        return len(self.tokens)

    def _encode_piece(self, piece):
        symbols = [BYTE_TO_CHAR[b] for b in piece.encode()]
        while len(symbols) > 1:
            ranked = [(self.ranks.get(pair, 1 << 30), at) for at, pair in enumerate(zip(symbols, symbols[1:]))]
            rank, at = min(ranked)
            if rank == 1 << 30:
                break
            symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
        return [self.ids[s] for s in symbols]

    def encode_plain(self, text):
        """Ids of text in which no control token is recognised."""
        out, cache = [], self._cache
        for piece in pre_tokenize(text):
            ids = cache.get(piece)
            if ids is None:
                ids = self._encode_piece(piece)
                if len(cache) < 200000:
                    cache[piece] = ids
            out += ids
        return out

    def encode(self, text):
        """Ids of rendered chat text: control tokens by name, the spans between them as plain text."""
        out = []
        for index, part in enumerate(self.split(text)):
            if index % 2:
                out.append(self.control[part])
            elif part:
                out += self.encode_plain(part)
        return out

    def decode(self, ids):
        """Text of ids; control tokens appear by name, broken UTF-8 as replacement characters."""
        out = bytearray()
        for token in ids:
            text = self.tokens[token]
            out += text.encode() if text in self.control else bytes(CHAR_TO_BYTE[c] for c in text)
        return out.decode("utf-8", "replace")

    def save(self, path):
        """Writes a tokenizer.json of the published form."""
        pattern = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                   "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
        splits = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
                  for p in ("\\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", pattern)]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        added = [{"id": self.control[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                  "normalized": False, "special": t in LEADING_TOKENS} for t in LEADING_TOKENS + TRAILING_TOKENS]
        document = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": []},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits + [byte_level]},
            "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {t: i for i, t in enumerate(self.tokens[:self.base_size])},
                      "merges": [f"{a} {b}" for a, b in self.merges]},
        }
        with open(path, "w", encoding="utf-8") as out:
            json.dump(document, out, ensure_ascii=False)

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as source:
            document = json.load(source)
        return cls([tuple(m.split(" ")) for m in document["model"]["merges"]])
