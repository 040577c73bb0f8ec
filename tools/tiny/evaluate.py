"""Quick ability scores by teacher forcing: a case counts when the model's greedy choice equals every token of every
model turn, which is exactly when greedy decoding would write the expected conversation. Replies that are right in
other words count as wrong, so these are lower bounds of what the engine's scorer finds."""
import random

import torch

import packs

OWN_WEIGHT = 0.9


def _pack(cases, length):
    """Rows of (ids, weights, blocks, spans) holding the encoded cases first-fit; spans = (case, start, end)."""
    rows = []
    for number, (ids, weights) in enumerate(cases):
        fill = -len(ids) % packs.BLOCK
        row = next((r for r in rows if len(r[0]) + len(ids) + fill <= length), None)
        if row is None:
            row = ([], [], [], [])
            rows.append(row)
        row[3].append((number, len(row[0]), len(row[0]) + len(ids)))
        row[0].extend(ids + [2] * fill)
        row[1].extend([0.0] + weights[1:] + [0.0] * fill)
        row[2].extend([number + 1] * ((len(ids) + fill) // packs.BLOCK))
    for ids, weights, blocks, _ in rows:
        missing = length - len(ids)
        ids += [2] * missing
        weights += [0.0] * missing
        blocks += [0] * (missing // packs.BLOCK)
    return rows


@torch.no_grad()
def score(model, tokenizer, mode, kinds, count, seed, device, quantise, tokens_per_pass=65536):
    """kind -> dict(exact, token, draft): share of exact cases, of right tokens, and of accepted first drafts."""
    makers, out = packs.scored_makers(tokenizer), {}
    for kind in kinds:
        rng = random.Random(f"eval/{seed}/{kind}")
        cases = [packs.encode_case(tokenizer, makers[kind](rng)) for _ in range(count)]
        length = max(2048, max(len(c[0]) for c in cases) + 127 & ~127)
        rows = _pack(cases, length)
        right = torch.zeros(count, dtype=torch.bool)
        tokens = hits = drafted = accepted = 0
        per_pass = max(1, tokens_per_pass // length)
        for start in range(0, len(rows), per_pass):
            part = rows[start:start + per_pass]
            ids = torch.tensor([r[0] for r in part], device=device)
            weights = torch.tensor([r[1] for r in part], device=device)
            blocks = torch.tensor([r[2] for r in part], device=device)
            logits, draft = model.run(ids, mode, blocks=blocks, with_draft=True, quantise=quantise)
            best, guess = logits.argmax(-1), draft.argmax(-1)
            own = weights[:, 1:] > OWN_WEIGHT
            good = best[:, :-1] == ids[:, 1:]
            tokens += own.sum().item()
            hits += (good & own).sum().item()
            both = own[:, 1:] & own[:, :-1]
            drafted += both.sum().item()
            accepted += ((guess[:, :-2] == best[:, 1:-1]) & both).sum().item()
            bad = (own & ~good).cpu()
            for row, (_, _, _, spans) in enumerate(part):
                for case, begin, end in spans:
                    right[case] = not bad[row, begin:end - 1].any().item()
        out[kind] = {"exact": right.float().mean().item(), "token": hits / max(1, tokens), "draft": accepted / max(1, drafted)}
    return out


def show(scores):
    return "  ".join(f"{k} {v['exact']:.3f}/{v['token']:.4f}/{v['draft']:.2f}" for k, v in scores.items())
