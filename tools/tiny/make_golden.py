"""Golden values of the shipped GGUF file: for fixed prompts, the strongest logits of every position, in f32.

    python3 tools/tiny/make_golden.py --gguf models/ds4-tiny.gguf --out tools/tiny/golden

For each prompt (`agent`, `recall`) and each tag (`noquant`: plain f32; `quant`: FP8 key/value and FP4 indexer round
trips) the file holds `ids` [T] i32, `top_ids_<tag>` [T, 48] i32, `top_logits_<tag>` [T, 48] f32, `lse_<tag>` [T] f32
(log of the sum of exponentials over the vocabulary), and `mtp_top_ids_<tag>` / `mtp_top_logits_<tag>` [T - 1, 16].
Weights are those of the GGUF file, dequantised.
"""
import argparse
import os
import random

import torch

import checkpoint
import gguf_weights
import model as architecture
import packs
import talk
import toolwork

TOP, DRAFT_TOP, LENGTH = 48, 16, 300


def prompts(tokenizer):
    """name -> ids of at most LENGTH tokens."""
    rng = random.Random("golden/1")
    agent = packs.encode_case(tokenizer, toolwork.make_tool_result(rng, scored=True))[0]
    recall = packs.encode_case(tokenizer, talk.make_recall(rng, 8, 8, 4))[0]
    return {"agent": agent[-LENGTH:], "recall": recall[:LENGTH]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    tokenizer = packs.load_tokenizer()
    model = gguf_weights.load(architecture.TinyModel(architecture.Config(vocab_size=len(tokenizer))), args.gguf).eval()
    os.makedirs(args.out, exist_ok=True)
    for name, ids in prompts(tokenizer).items():
        out = {"ids": torch.tensor(ids, dtype=torch.int32)}
        for tag, round_trips in (("noquant", False), ("quant", True)):
            logits, draft = model.run(torch.tensor([ids]), architecture.Mode(round_trips=round_trips), with_draft=True)
            best = torch.topk(logits[0], TOP, -1)
            guess = torch.topk(draft[0, :-1], DRAFT_TOP, -1)
            out[f"top_ids_{tag}"], out[f"top_logits_{tag}"] = best[1].to(torch.int32), best[0]
            out[f"lse_{tag}"] = torch.logsumexp(logits[0], -1)
            out[f"mtp_top_ids_{tag}"], out[f"mtp_top_logits_{tag}"] = guess[1].to(torch.int32), guess[0]
            right = (logits[0, :-1].argmax(-1) == torch.tensor(ids[1:])).float().mean().item()
            print(f"{name} {tag}: {len(ids)} tokens, next token right {right:.3f}")
        checkpoint.write_safetensors(os.path.join(args.out, f"{name}.safetensors"), out)


if __name__ == "__main__":
    main()
