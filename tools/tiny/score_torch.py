"""Scores a GGUF file in PyTorch on the cases that measure.py wrote (f32 arithmetic, FP8/FP4 round trips).

    python3 tools/tiny/score_torch.py --gguf models/ds4-tiny.gguf --cases build/tiny-measure/cases.jsonl [--reference CHECKPOINT_DIR]

A case counts when every token of every expected turn is the greedy choice, which is stricter than measure.py. With --reference, also the
loss of both sets of weights and how often their greedy choices agree. With --decode-wrong, the first failed turn of
every failed case is decoded greedily and judged for its form: it ends, its reasoning is closed, its calls are valid.
"""
import argparse
import json
from collections import defaultdict

import torch
import torch.nn.functional as F

import checkpoint
import evaluate
import gguf_weights
import judge
import model as architecture
import packs
from measure import spans


class Tally:
    """Sums over the positions of a pass."""

    def __init__(self):
        self.sums = defaultdict(float)

    def add(self, name, values):
        self.sums[name] += float(values.sum())
        self.sums[name + " count"] += values.numel()

    def mean(self, name):
        return self.sums[name] / max(1.0, self.sums[name + " count"])


def load_cases(path, tokenizer, limit):
    """ability -> list of (case, conversations [(ids, weights, ends of turns)]); weight 1 on the tokens to write."""
    out = defaultdict(list)
    with open(path, encoding="utf-8") as source:
        for line in source:
            case = json.loads(line)
            if len(out[case["ability"]]) >= limit:
                continue
            conversations = []
            for ids, marks, _ in spans(tokenizer, case):
                weights = [packs.CONTEXT_WEIGHT] * len(ids)
                for first, last in marks:
                    weights[first:last] = [1.0] * (last - first)
                conversations.append((ids, weights, [last for _, last in marks]))
            out[case["ability"]].append((case, conversations))
    return out


@torch.no_grad()
def decode(model, tokenizer, prompts, tokens_max, device):
    """Greedy continuations, without a cache: every step runs all prompts again."""
    mode, done = architecture.Mode(torch.float32, True, False, True), [None] * len(prompts)
    ids = [tokenizer.encode(p) for p in prompts]
    starts = [len(i) for i in ids]
    for _ in range(tokens_max):
        open_rows = [i for i, d in enumerate(done) if d is None]
        if not open_rows:
            break
        width = max(len(ids[i]) for i in open_rows)
        batch = torch.tensor([ids[i] + [2] * (width - len(ids[i])) for i in open_rows], device=device)
        logits = model.run(batch, mode)
        last = torch.tensor([len(ids[i]) - 1 for i in open_rows], device=device)
        best = logits[torch.arange(len(open_rows), device=device), last].argmax(-1).tolist()
        for row, token in zip(open_rows, best):
            ids[row].append(token)
            if token == 1:
                done[row] = True
    return [tokenizer.decode(i[s:]) for i, s in zip(ids, starts)]


def report_wrong(model, tokenizer, wrong, cases, device, tokens_max):
    """Decodes and judges the first failed turn of the cases `wrong` (number -> index of the turn)."""
    turns = [cases[number]["turns"][turn] for number, turn in wrong.items()]
    texts = decode(model, tokenizer, [t["prompt"] for t in turns], tokens_max, device)
    verdicts = [judge.Verdict(text, turn, cases[number]["thinking"]) for text, turn, number in zip(texts, turns, wrong)]
    print(f"   of {len(turns)} failed: unclean end {sum(not v.clean for v in verdicts)}, reasoning {sum(not v.reasoning for v in verdicts)}, "
          f"invalid calls {sum(v.valid is False for v in verdicts)}, right all the same {sum(v.right for v in verdicts)}")
    for text, turn in list(zip(texts, turns))[:3]:
        print(f"   wanted {turn['expect']['text']!r}\n   wrote  {text!r}")


def score(models, cases, device, tokens_per_pass, tally):
    """({failed case: first failed turn}, draft acceptance) of models[0]; models[1], if there, is compared with it."""
    flat, turn_count = [], defaultdict(int)
    for number, (_, conversations) in enumerate(cases):
        for conversation in conversations:
            flat.append((number, conversation, turn_count[number]))
            turn_count[number] += len(conversation[2])
    length = max(2048, max(len(c[0]) for _, c, _ in flat) + 127 & ~127)
    wrong = {}
    drafted = accepted = 0
    rows = evaluate._pack([c[:2] for _, c, _ in flat], length)
    step = max(1, tokens_per_pass // length)
    mode = architecture.Mode(torch.float32, True, False, True)
    for start in range(0, len(rows), step):
        part = rows[start:start + step]
        ids, weights, blocks = (torch.tensor([r[i] for r in part], device=device) for i in range(3))
        logits, draft = models[0].run(ids, mode, blocks=blocks, with_draft=True)
        best, guess, own = logits.argmax(-1), draft.argmax(-1), weights[:, 1:] > evaluate.OWN_WEIGHT
        bad = (own & (best[:, :-1] != ids[:, 1:])).cpu()
        both = own[:, 1:] & own[:, :-1]
        drafted += both.sum().item()
        accepted += ((guess[:, :-2] == best[:, 1:-1]) & both).sum().item()
        for row, (_, _, _, marks) in enumerate(part):
            for index, begin, end in marks:
                failed = bad[row, begin:end - 1].nonzero()
                if len(failed):
                    number, (_, _, ends), first_turn = flat[index]
                    turn = first_turn + next(i for i, last in enumerate(ends) if failed[0].item() + 1 < last)
                    wrong[number] = min(turn, wrong.get(number, turn))
        if len(models) > 1:
            real, other = weights > 0, models[1].run(ids, mode, blocks=blocks)
            same = (other.argmax(-1) == best)
            tally.add("same choice, all positions", same[real].float())
            tally.add("same choice, own turns", same[:, :-1][own].float())
            for name, values in (("file", logits), ("reference", other)):
                losses = F.cross_entropy(values[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(own.shape)
                tally.add(f"loss of own turns, {name}", losses[own])
                tally.add(f"loss of all tokens, {name}", losses[weights[:, 1:] > 0])
    return wrong, accepted / max(1, drafted)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--reference")
    parser.add_argument("--limit", type=int, default=10 ** 9)
    parser.add_argument("--decode-wrong", type=int, default=0, metavar="TOKENS", help="decode up to TOKENS of every failed turn")
    parser.add_argument("--tokens-per-pass", type=int, default=32768)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = packs.load_tokenizer()
    config = architecture.Config(vocab_size=len(tokenizer))
    models = [gguf_weights.load(architecture.TinyModel(config), args.gguf).to(device).eval()]
    if args.reference:
        tensors = checkpoint.load_folder(args.reference)
        models.append(checkpoint.load_published(architecture.TinyModel(config), tensors).to(device).eval())
    tally = Tally()
    for ability, cases in load_cases(args.cases, tokenizer, args.limit).items():
        wrong, draft = score(models, cases, device, args.tokens_per_pass, tally)
        print(f"{ability}: {len(cases) - len(wrong)}/{len(cases)} exact, draft accepted {draft:.4f}", flush=True)
        if wrong and args.decode_wrong:
            report_wrong(models[0], tokenizer, wrong, [case for case, _ in cases], device, args.decode_wrong)
    for name in tally.sums:
        if not name.endswith("count"):
            print(f"{name}: {tally.mean(name):.5f}")


if __name__ == "__main__":
    main()
