"""Scores ability cases of make_eval.py through the engine by teacher forcing (standard library only).

    python3 tools/tiny/score_forced.py --cases build/tiny-eval.jsonl --model models/ds4-tiny.gguf --ds4-gguf PATH

Every conversation runs once through `ds4-gguf logits`. A turn is right when the engine's greedy choice equals every
token of the expected continuation, which is when greedy decoding would write exactly that; a case is right when all
its turns are. Replies that are right in other words count as wrong, so the shares are lower bounds. Also counted: how
often the MTP block's first draft equals the main model's choice.
"""
import argparse
import array
import concurrent.futures
import json
import os
import subprocess
import tempfile
from collections import defaultdict

import packs


def best_of(values):
    return max(range(len(values)), key=values.__getitem__)


class Engine:
    def __init__(self, args):
        self.args = args

    def choices(self, ids, wanted):
        """Greedy choices at the positions `wanted`, and the draft choices at the same positions."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("ids", "main", "draft")]
            with open(paths[0], "w", encoding="utf-8") as out:
                json.dump(ids, out)
            command = [self.args.ds4_gguf, "logits", "-m", self.args.model, "--ids", paths[0], "--out", paths[1],
                       "--mtp-out", paths[2], "--threads", "1", *self.args.option]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr.strip())
            return self._pick(paths[1], ids, wanted), self._pick(paths[2], ids, wanted)

    @staticmethod
    def _pick(path, ids, wanted):
        row = None
        out = {}
        with open(path, "rb") as source:
            rows = os.path.getsize(path)
            for p in wanted:
                size = row or Engine.vocab * 4
                if (p + 1) * size > rows:
                    continue
                source.seek(p * size)
                out[p] = best_of(array.array("f", source.read(size)))
        return out


def spans(tokenizer, case):
    """(ids, [(first, last)]) of the conversations of a case; turns that extend one another share one."""
    groups = []
    for turn in case["turns"]:
        prompt, text = turn["prompt"], turn["expect"]["text"]
        if groups and prompt.startswith(groups[-1][0]):
            groups[-1][0] = prompt + text
        else:
            groups.append([prompt + text, []])
        groups[-1][1].append((len(tokenizer.encode(prompt)), len(tokenizer.encode(prompt + text))))
    return [(tokenizer.encode(text), marks) for text, marks in groups]


def score_case(engine, tokenizer, case):
    right, drafts, accepted, first_wrong = True, 0, 0, None
    for ids, marks in spans(tokenizer, case):
        wanted = [p for first, last in marks for p in range(first - 1, last - 1)]
        main, draft = engine.choices(ids, wanted)
        for p in wanted:
            if main[p] != ids[p + 1]:
                right = False
                first_wrong = first_wrong or (tokenizer.decode(ids[max(0, p - 12):p + 1]), tokenizer.decode([ids[p + 1]]),
                                              tokenizer.decode([main[p]]))
            if p + 1 in main and p in draft:
                drafts += 1
                accepted += draft[p] == main[p + 1]
    return right, drafts, accepted, first_wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ds4-gguf", required=True)
    parser.add_argument("--limit", type=int, default=10 ** 9, help="cases of each ability")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--option", action="append", default=[], help="passed on to ds4-gguf logits")
    parser.add_argument("--show-wrong", type=int, default=0)
    args = parser.parse_args()
    tokenizer = packs.load_tokenizer()
    Engine.vocab = len(tokenizer)
    engine, chosen = Engine(args), defaultdict(list)
    with open(args.cases, encoding="utf-8") as source:
        for line in source:
            case = json.loads(line)
            if len(chosen[case["ability"]]) < args.limit:
                chosen[case["ability"]].append(case)
    for ability, cases in chosen.items():
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(lambda c: score_case(engine, tokenizer, c), cases))
        drafts = sum(r[1] for r in results)
        print(f"{ability}: {sum(r[0] for r in results)}/{len(results)} exact, draft accepted {sum(r[2] for r in results) / max(1, drafts):.4f}",
              flush=True)
        for wrong in [r[3] for r in results if r[3]][:args.show_wrong]:
            print(f"   after {wrong[0]!r}: expected {wrong[1]!r}, got {wrong[2]!r}")


if __name__ == "__main__":
    main()
