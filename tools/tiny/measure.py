"""Measures the abilities of a ds4-tiny file through the engine, on fresh held-out cases (standard library only).

    python3 tools/tiny/measure.py --ds4-gguf build/release/apps/ds4-gguf/ds4-gguf --model models/ds4-tiny.gguf

For every ability it makes --count cases from --seed (no training batch uses these seeds) and asks the engine what
greedy decoding would write. A turn whose every token is the engine's greedy choice is written as expected; any other
turn is decoded by the engine, token by token, and judged by its meaning: the answer, the calls, the report. Turns after
the first see the scripted history. Also counted: valid calls, reasoning, control tokens, and how often the MTP block's
first draft is the token that the main model then chooses. Prints a table and exits with 1 when a bar is missed.

Work is spread over --jobs single-threaded processes; WORK/ keeps cases.jsonl and failures.jsonl.
"""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from collections import defaultdict

import judge
import make_eval
import packs

# (row, bar in percent); rows are filled by Scores
BARS = [("chat: ends its turn, no stray control token", 99.5), ("all abilities: the same", 99.5), ("arithmetic: right", 95.0),
        ("recall_1500: right", 95.0), ("recall_6000: right", 80.0), ("tool_call: valid calls", 99.5), ("tool_call: right", 95.0),
        ("tool_result: right, all turns", 90.0), ("thinking turns: one closed reasoning", 99.0), ("other turns: no reasoning", 99.0),
        ("agent: right, all turns", 85.0), ("chat: right, all turns", None)]
DRAFT_BAR = 60.0


def spans(tokenizer, case):
    """[(ids, [(first, last)], [turn])] of the conversations of a case; turns that extend one another share one."""
    groups = []
    for number, turn in enumerate(case["turns"]):
        prompt, text = turn["prompt"], turn["expect"]["text"]
        if groups and prompt.startswith(groups[-1][0]):
            groups[-1][0] = prompt + text
        else:
            groups.append([prompt + text, [], []])
        groups[-1][1].append((len(tokenizer.encode(prompt)), len(tokenizer.encode(prompt + text))))
        groups[-1][2].append(number)
    return [(tokenizer.encode(text), marks, numbers) for text, marks, numbers in groups]


class Engine:
    """Runs `ds4-gguf greedy` over lists of items, several processes at a time."""

    def __init__(self, args):
        self.args, self.environment = args, dict(os.environ)
        if args.libraries:
            self.environment["LD_LIBRARY_PATH"] = args.libraries
        os.makedirs(args.work, exist_ok=True)

    def _shard(self, number, items):
        paths = [os.path.join(self.args.work, f"shard-{number}.{end}") for end in ("in", "out")]
        with open(paths[0], "w", encoding="utf-8") as out:
            out.writelines(json.dumps(item) + "\n" for item in items)
        command = [self.args.ds4_gguf, "greedy", "-m", self.args.model, "--in", paths[0], "--out", paths[1],
                   "--threads", str(self.args.threads), *self.args.option]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        with open(paths[1], encoding="utf-8") as source:
            answers = [json.loads(line) for line in source]
        for path in paths:
            os.remove(path)
        return answers

    def run(self, items):
        """Answers by id. Long items first, in shards small enough that the processes end together."""
        items = sorted(items, key=lambda i: -len(i["ids"]))
        count = min(len(items), self.args.jobs * 8)
        shards, total = [items[i::count] for i in range(count)], sum(len(i["ids"]) for i in items)
        begun, answers, done = time.time(), {}, 0
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            futures = {pool.submit(self._shard, n, s): s for n, s in enumerate(shards)}
            for future in concurrent.futures.as_completed(futures):
                answers.update((a["id"], a) for a in future.result())
                done += sum(len(i["ids"]) for i in futures[future])
                print(f"\r  {done}/{total} tokens, {done / (time.time() - begun):.0f} tokens/s ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return answers


class Scores:
    """Shares in percent by row of the table, with their counts."""

    def __init__(self):
        self.good, self.all, self.exact = defaultdict(int), defaultdict(int), defaultdict(int)

    def add(self, row, good):
        self.good[row] += bool(good)
        self.all[row] += 1

    def case(self, case, verdicts):
        ability = case["ability"]
        clean = all(v.clean for v in verdicts)
        self.add("all abilities: the same", clean)
        if ability == "chat":
            self.add("chat: ends its turn, no stray control token", clean)
        if ability == "tool_call":
            self.add("tool_call: valid calls", all(v.valid is not False for v in verdicts))
        for verdict in verdicts:
            self.add("thinking turns: one closed reasoning" if case["thinking"] else "other turns: no reasoning", verdict.reasoning)
        name = next(row for row, _ in BARS if row.startswith(f"{ability}: right"))
        self.add(name, all(v.right for v in verdicts))

    def table(self, drafts):
        """(lines, every bar met)."""
        lines, met = [], True
        rows = [(row, bar, self.good[row], self.all[row]) for row, bar in BARS]
        rows += [(f"{ability}: first draft accepted", DRAFT_BAR, good, count) for ability, (good, count) in drafts.items()]
        for row, bar, good, count in rows:
            if count:
                share = 100.0 * good / count
                ok = bar is None or share >= bar
                met = met and ok
                lines.append(f"| {row} | {'' if bar is None else f'{bar:g} %'} | {share:.2f} % | {good}/{count} | {'' if ok else 'MISSED'} |")
        return ["| ability | bar | share | cases | |", "|---|---|---|---|---|", *lines], met


def exact_turns(engine, tokenizer, cases):
    """((case, turn) -> written exactly as expected, ability -> [accepted drafts, drafts])."""
    items, parts, exact, drafts = [], {}, {}, defaultdict(lambda: [0, 0])
    for number, case in enumerate(cases):
        for ids, marks, turns in spans(tokenizer, case):
            parts[len(items)] = (number, ids, marks, turns)
            items.append({"id": len(items), "ids": ids, "spans": marks})
    for key, answer in engine.run(items).items():
        number, ids, marks, turns = parts[key]
        tally = drafts[cases[number]["ability"]]
        for (first, last), turn, chosen, guessed in zip(marks, turns, answer["choices"], answer["drafts"]):
            exact[number, turn] = chosen == ids[first:last]
            pairs = [(c, g) for c, g in zip(chosen[1:], guessed[1:]) if g is not None]
            tally[0] += sum(c == g for c, g in pairs)
            tally[1] += len(pairs)
    return exact, drafts


def written_turns(engine, tokenizer, cases, keys):
    """(case, turn) -> the text that the engine writes for it."""
    items = []
    for number, key in enumerate(keys):
        turn = cases[key[0]]["turns"][key[1]]
        limit = 100 + 2 * len(tokenizer.encode(turn["expect"]["text"]))
        items.append({"id": number, "ids": tokenizer.encode(turn["prompt"]), "limit": limit})
    return {keys[number]: tokenizer.decode(a["tokens"]) for number, a in engine.run(items).items()} if items else {}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ds4-gguf", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=500, help="cases of each ability")
    parser.add_argument("--seed", default="2026")
    parser.add_argument("--ability", action="append", choices=make_eval.ABILITIES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--work", default="build/tiny-measure")
    parser.add_argument("--option", action="append", default=[], help="passed on to ds4-gguf greedy, e.g. --option=--backend=cuda")
    parser.add_argument("--libraries", help="folder of the shared libraries that were carried along with the program")
    parser.add_argument("--show", type=int, default=0, help="failed turns to print")
    return parser.parse_args()


def main():
    args = arguments()
    tokenizer, engine, begun = packs.load_tokenizer(), Engine(args), time.time()
    cases = [case for ability in args.ability or make_eval.ABILITIES
             for case in make_eval.cases(tokenizer, ability, args.count, args.seed)]
    with open(os.path.join(args.work, "cases.jsonl"), "w", encoding="utf-8") as out:
        out.writelines(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
    print(f"{len(cases)} cases made, {time.time() - begun:.0f} s", file=sys.stderr)
    exact, drafts = exact_turns(engine, tokenizer, cases)
    written = written_turns(engine, tokenizer, cases, [key for key, same in exact.items() if not same])
    scores, failures = Scores(), []
    for number, case in enumerate(cases):
        texts = [written.get((number, n), turn["expect"]["text"]) for n, turn in enumerate(case["turns"])]
        verdicts = [judge.Verdict(text, turn, case["thinking"]) for text, turn in zip(texts, case["turns"])]
        scores.case(case, verdicts)
        failures += [{"id": case["id"], "turn": n, "right": v.right, "valid": v.valid, "prompt": turn["prompt"],
                      "expected": turn["expect"]["text"], "written": written[number, n]}
                     for n, (turn, v) in enumerate(zip(case["turns"], verdicts)) if (number, n) in written]
    with open(os.path.join(args.work, "failures.jsonl"), "w", encoding="utf-8") as out:
        out.writelines(json.dumps(failure, ensure_ascii=False) + "\n" for failure in failures)
    for failure in failures[:args.show]:
        print(f"{failure['id']} right {failure['right']} valid {failure['valid']}\n  expected {failure['expected']!r}\n"
              f"  written  {failure['written']!r}")
    lines, met = scores.table(drafts)
    print("\n".join(lines))
    print(f"\n{len(written)} of {len(exact)} turns were written in another way than expected; {time.time() - begun:.0f} s")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
