"""Loss and argmax agreement of GGUF files on held-out conversations, through the engine (standard library only).

    python3 tools/tiny/compare_files.py --cases build/tiny-measure/cases.jsonl --ds4-gguf PATH REFERENCE.gguf OTHER.gguf...

For every file: the mean loss per token of the model's own turns, the same over all tokens, and how often its greedy
choice is that of the first file (over all positions).
"""
import argparse
import array
import json
import math
import os
import subprocess
import tempfile

import packs
from measure import spans


def best_of(values):
    return max(range(len(values)), key=values.__getitem__)


def logits_rows(binary, model, ids, vocab):
    with tempfile.TemporaryDirectory() as folder:
        ids_path, out_path = os.path.join(folder, "ids"), os.path.join(folder, "out")
        with open(ids_path, "w", encoding="utf-8") as out:
            json.dump(ids, out)
        subprocess.run([binary, "logits", "-m", model, "--ids", ids_path, "--out", out_path], check=True)
        values = array.array("f")
        with open(out_path, "rb") as source:
            values.frombytes(source.read())
    return [values[i:i + vocab] for i in range(0, len(values), vocab)]


def loss_of(row, target):
    peak = max(row)
    return peak + math.log(sum(math.exp(v - peak) for v in row)) - row[target]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--ds4-gguf", required=True)
    parser.add_argument("--per-ability", type=int, default=4)
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    tokenizer, taken, conversations = packs.load_tokenizer(), {}, []
    with open(args.cases, encoding="utf-8") as source:
        for line in source:
            case = json.loads(line)
            taken[case["ability"]] = taken.get(case["ability"], 0) + 1
            if taken[case["ability"]] <= args.per_ability:
                conversations += [(ids, marks) for ids, marks, _ in spans(tokenizer, case)]
    reference = []
    for file in args.files:
        own = all_tokens = 0.0
        own_count = count = same = own_same = 0
        for number, (ids, marks) in enumerate(conversations):
            rows = logits_rows(args.ds4_gguf, file, ids, len(tokenizer))
            best = [best_of(row) for row in rows]
            if file == args.files[0]:
                reference.append(best)
            agrees = [a == b for a, b in zip(best, reference[number])]
            mine = {p for first, last in marks for p in range(first - 1, last - 1)}
            same += sum(agrees)
            own_same += sum(agrees[p] for p in mine)
            for p in range(len(ids) - 1):
                loss = loss_of(rows[p], ids[p + 1])
                all_tokens += loss
                count += 1
                if p in mine:
                    own += loss
                    own_count += 1
        positions = sum(len(r) for r in reference)
        print(f"{file}: own turns {own / own_count:.5f} ({own_count} tokens), all {all_tokens / count:.5f} ({count} tokens), "
              f"same choice as the first file {same / positions:.4f}, in own turns {own_same / own_count:.4f}", flush=True)


if __name__ == "__main__":
    main()
