"""Trains the byte-level BPE on the synthetic text and writes tokenizer.json (deterministic)."""
import argparse
import random

import bpe
import chat
import packs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--seed", default="bpe-1")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    texts = []
    for kind, count in (("arithmetic", 300), ("chat", 2500), ("copy", 500), ("recall_mid", 200), ("tool_call", 1500),
                        ("tool_result", 900), ("agent", 900)):
        for _ in range(count):
            case = packs.MAKERS[kind](rng)
            texts += [text for text, _ in chat.render(case.messages, case.thinking)]
    texts = [part for text in texts for part in split_controls(text)]
    merges = bpe.train_merges(texts, args.vocab - 256 - len(bpe.LEADING_TOKENS) - len(bpe.TRAILING_TOKENS))
    tokenizer = bpe.Tokenizer(merges)
    tokenizer.save(packs.TOKENIZER_PATH)
    print(f"{len(tokenizer)} tokens, {len(merges)} merges")


_EMPTY = bpe.Tokenizer([])


def split_controls(text):
    """The plain spans between control tokens."""
    return [part for index, part in enumerate(_EMPTY.split(text)) if part and index % 2 == 0]


if __name__ == "__main__":
    main()
