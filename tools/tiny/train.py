"""Trains ds4-tiny: resumable, a function of the seed, about a quarter of an hour on one H200.

    python3 tools/tiny/train.py --state STATE_DIR --out OUT_DIR [--seconds S] [--start models/ds4-tiny.gguf] [--mixture M]

Every step's data is drawn from (seed, step, mixture). The schedule follows the steps, so that a run repeats; with
--seconds it follows the clock instead, from the end of the preparation (compilation, a first pass of every shape) to S
seconds after the start of the program, so that the rate always reaches its end. The run stops at --stop-seconds and goes
on from STATE_DIR/state.pt when started again; when it is done it writes the published checkpoint and the scores to
OUT_DIR. --start takes the weights of a GGUF file: for such a run the later mixture, the long rows and the quantised
experts are there from the first step. --mixture names what it is fed (packs.RECIPES): kinds of dialogue and weights.
"""
import argparse
import contextlib
import json
import multiprocessing
import os
import time

BEGUN = time.time()  # before PyTorch is loaded, which takes a while on a machine that has just started

import torch
import torch.nn.functional as F

import checkpoint
import evaluate
import gguf_weights
import model as architecture
import optim
import packs

SHORT = 2048


class Schedule:
    """What happens when. Shared with the processes that draw the data, which run a few seconds ahead."""

    def __init__(self, args):
        self.args, self.long_from, self.quantise_from = args, args.long_from, args.quantise_from
        if args.start:
            self.long_from = self.quantise_from = 0.0
        self.clock = multiprocessing.Value("d", float("inf"))  # when the time-boxed schedule began
        self.length = multiprocessing.Value("d", 1.0)          # its seconds

    def begin(self, used, length):
        """Starts the clock of a time-boxed run, `used` seconds of `length` into it."""
        self.length.value = length
        self.clock.value = time.time() - used

    def used(self):
        return max(0.0, time.time() - self.clock.value)

    def progress(self, step):
        if self.args.seconds:
            return min(1.0, self.used() / self.length.value)
        return min(1.0, step / self.args.steps)

    def done(self, step):
        return self.progress(step) >= 1.0

    def mixture(self, progress):
        return 1.0 if self.args.start else progress

    def is_long(self, step, progress):
        return progress >= self.long_from and step % self.args.long_every == 0

    def rate(self, step):
        warm = min(1.0, (step + 1) / 80)
        left = (1.0 - self.progress(step)) / self.args.decay
        return self.args.rate * warm * max(0.002, min(1.0, left))

    def quantise(self, step):
        return self.progress(step) >= self.quantise_from


def tensors_of(rows):
    return tuple(torch.tensor([r[i] for r in rows], dtype=kind) for i, kind in enumerate((torch.int32, torch.float32, torch.int32)))


class Steps(torch.utils.data.Dataset):
    def __init__(self, args, schedule, first):
        self.args, self.schedule, self.first, self.tokenizer = args, schedule, first, None

    def __len__(self):
        return (10 ** 6 if self.args.seconds else self.args.steps) - self.first

    def draw(self, step, progress, long_rows):
        if self.tokenizer is None:
            self.tokenizer = packs.load_tokenizer()
        length = self.args.long_tokens if long_rows else SHORT
        rows = max(1, self.args.batch_tokens // length)
        return tensors_of(packs.batch(self.tokenizer, self.args.seed, step, rows, length, self.schedule.mixture(progress), long_rows,
                                      self.args.mixture))

    def __getitem__(self, index):
        progress = self.schedule.progress(self.first + index)
        return self.draw(self.first + index, progress, self.schedule.is_long(self.first + index, progress))


def cross_entropy(hidden, head, targets, weights, dtype):
    """Sum of weighted losses; rows are positions."""
    logits = F.linear(hidden.to(dtype), head.to(dtype)).float()
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum()


class Trainer:
    def __init__(self, args):
        self.args, self.device = args, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.schedule, self.tokenizer = Schedule(args), packs.load_tokenizer()
        self.config = architecture.Config(vocab_size=len(self.tokenizer))
        self.model = architecture.initialise(architecture.TinyModel(self.config), args.seed)
        if args.start:
            gguf_weights.load(self.model, args.start)
        self.model.to(self.device)
        self.mode = architecture.Mode(torch.bfloat16 if self.device.type == "cuda" else torch.float32, True, True, True)
        self.muon, self.adam = optim.build(self.model, args.muon_rate)
        self.step, self.log, self.used, self.length, self.parts = 0, [], 0.0, None, 1
        self.loss_of = cross_entropy
        if args.compile:
            torch._dynamo.config.cache_size_limit = 64
            for block in [*self.model.layers, *self.model.mtp]:
                block.compile(dynamic=False)
            self.loss_of = torch.compile(cross_entropy, dynamic=False)

    def note(self, text):
        print(text, flush=True)
        self.log.append(text)

    def save(self):
        os.makedirs(self.args.state, exist_ok=True)
        path = os.path.join(self.args.state, "state.pt")
        torch.save({"model": self.model.state_dict(), "muon": self.muon.state_dict(), "adam": self.adam.state_dict(),
                    "step": self.step, "log": self.log,
                    "used": self.schedule.used(), "length": self.schedule.length.value}, path + ".new")
        os.replace(path + ".new", path)

    def resume(self):
        path = os.path.join(self.args.state, "state.pt")
        if not os.path.exists(path):
            return
        state = torch.load(path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.step, self.log, self.used, self.length = state["step"], state["log"], state["used"], state["length"]

    def prepare(self, steps):
        """Runs every shape and mode of the run once, without a step, so that the clock does not pay for compilation.
        Where the memory does not suffice, batches are cut into parts whose gradients add up."""
        batches = [steps.draw(0, 0.0, long_rows) for long_rows in (False, True)]
        while True:
            try:
                for batch in batches:
                    for quantise in {self.schedule.quantise_from <= 0.0, True}:
                        self.gradients(batch, quantise)
                        self.model.zero_grad(set_to_none=True)
                full = self.device.type == "cuda" and torch.cuda.max_memory_allocated() > 0.88 * torch.cuda.mem_get_info()[1]
            except torch.cuda.OutOfMemoryError:
                full = True
            if not full or self.parts >= 4:
                break
            self.parts *= 2
            self.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.note(f"ready, batches in {self.parts} parts, {time.time() - BEGUN:.0f} s")

    def _to_device(self, batch):
        ids, weights, blocks = (x.to(self.device, non_blocking=True) for x in batch)
        return ids.long(), weights, blocks.long()

    def losses(self, ids, weights, blocks, quantise):
        """(main, draft, indexer losses, loads) of one batch."""
        model, mode = self.model, self.mode
        geometry = model.geometry(blocks)
        experts = model.expert_weights(quantise)
        x, index_losses, loads = model.trunk(ids, geometry, experts, mode)
        shifted = F.pad(ids[:, 1:], (0, 1), value=2)
        drafted, load = model.draft(x, shifted, geometry, experts, mode)
        one = F.pad(weights[:, 1:], (0, 1))
        two = F.pad(weights[:, 2:] * (weights[:, 1:-1] > 0), (0, 2))
        main = self.loss_of(model.hidden(x), model.head.weight, shifted, one, mode.dtype) / one.sum()
        later = F.pad(ids[:, 2:], (0, 2), value=2)
        draft = self.loss_of(drafted, model.head.weight, later, two, mode.dtype) / two.sum()
        return main, draft, sum(index_losses), loads + [load]

    def balance(self, loads):
        for block, load in zip([*self.model.layers, *self.model.mtp], loads):
            if not block.ffn.hashed:
                mean = self.config.active_experts / self.config.experts
                step = self.args.balance * min(1.0, self.schedule.rate(self.step))
                block.ffn.gate.bias.add_(step * torch.sign(mean - load.detach()))

    def gradients(self, batch, quantise):
        """Adds up the gradients of a batch: ([main, draft, indexer losses], loads)."""
        parts = min(self.parts, batch[0].shape[0])
        total, sums = 0.0, None
        for part in zip(*(x.chunk(parts) for x in batch)):
            main, draft, index, loads = self.losses(*self._to_device(part), quantise)
            ((main + 0.3 * draft + index) / parts).backward()
            total = total + torch.stack([main.detach(), draft.detach(), index.detach()]) / parts
            loads = [load.detach() / parts for load in loads]
            sums = loads if sums is None else [a + b for a, b in zip(sums, loads)]
        return total, sums

    def train_step(self, batch):
        losses, loads = self.gradients(batch, self.schedule.quantise(self.step))
        rate = self.schedule.rate(self.step)
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * rate
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.adam.step()
        self.muon.step(self.muon.base * rate)
        with torch.no_grad():
            self.balance(loads)
        self.model.zero_grad(set_to_none=True)
        return losses

    def evaluate(self, kinds, count, quantise=True):
        mode = architecture.Mode(self.mode.dtype, True, False, True)
        with torch.compiler.set_stance("force_eager") if self.args.compile else contextlib.nullcontext():
            return evaluate.score(self.model, self.tokenizer, mode, kinds, count, self.args.seed, self.device, quantise)

    def report(self, recent, tokens, seconds):
        parts = []
        for name, flag in (("", False), ("long ", True)):
            rows = [v for is_long, v in recent if is_long == flag]
            if rows:
                main, draft, index = torch.stack(rows).mean(0).tolist()
                parts.append(f"{name}loss {main:.4f} draft {draft:.4f} index {index:.4f}")
        self.note(f"step {self.step} {'; '.join(parts)}; {tokens / seconds / 1e3:.0f}k tokens/s, progress "
                  f"{self.schedule.progress(self.step):.3f}, {time.time() - BEGUN:.0f} s")

    def run(self):
        args, steps = self.args, Steps(self.args, self.schedule, self.step)
        workers = {"num_workers": args.workers, "prefetch_factor": 6} if args.workers else {}
        loader = iter(torch.utils.data.DataLoader(steps, batch_size=None, pin_memory=self.device.type == "cuda", **workers))
        self.prepare(steps)
        if args.seconds:
            self.schedule.begin(self.used, self.length or max(1.0, args.seconds - (time.time() - BEGUN)))
        recent, tokens, mark, saved = [], 0, time.time(), time.time()
        for batch in loader:
            recent.append((batch[0].shape[1] == args.long_tokens, self.train_step(batch)))
            self.step += 1
            tokens += batch[0].numel()
            if self.step % args.log_every == 0 or self.step <= 3:
                self.report(recent, tokens, time.time() - mark)
                recent, tokens, mark = [], 0, time.time()
            if self.step % args.eval_every == 0 and not self.schedule.done(self.step):
                kinds = ["chat", "arithmetic", "copy", "recall_1500", "tool_call", "tool_result", "agent"]
                self.note(f"  exact/token/draft: {evaluate.show(self.evaluate(kinds, 48, self.schedule.quantise(self.step)))}")
                mark = time.time()
            if time.time() - saved > args.save_every:
                self.save()
                saved = time.time()
            if self.schedule.done(self.step) or time.time() - BEGUN > args.stop_seconds:
                break
        memory = torch.cuda.max_memory_allocated() / 2 ** 30 if self.device.type == "cuda" else 0
        self.note(f"stopped after step {self.step}, {time.time() - BEGUN:.0f} s, peak memory {memory:.1f} GiB")
        self.save()

    def export(self):
        """The published checkpoint, then its scores as it will be read back."""
        out = self.args.out
        checkpoint.save_published(out, self.model)
        with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as target:
            json.dump(self.config.published(), target, indent=1)
        checkpoint.load_published(self.model, checkpoint.load_folder(out))
        with open(os.path.join(out, "training.log"), "w", encoding="utf-8") as target:
            target.write("\n".join(self.log) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--start", help="GGUF file whose weights to go on from")
    parser.add_argument("--mixture", choices=list(packs.RECIPES), default="even", help="what the training is fed (packs.RECIPES)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7400)
    parser.add_argument("--seconds", type=float, default=0, help="let the schedule follow the clock, to end after this time")
    parser.add_argument("--batch-tokens", type=int, default=32768)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--decay", type=float, default=0.6, help="share of the run over which the rate falls to zero")
    parser.add_argument("--long-tokens", type=int, default=6656, help="length of the long rows")
    parser.add_argument("--long-from", type=float, default=0.3)
    parser.add_argument("--long-every", type=int, default=6)
    parser.add_argument("--quantise-from", type=float, default=0.4)
    parser.add_argument("--balance", type=float, default=0.001)
    parser.add_argument("--workers", type=int, default=13)
    parser.add_argument("--stop-seconds", type=float, default=1e9)
    parser.add_argument("--save-every", type=float, default=150, help="seconds between saves of the state")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--eval-every", type=int, default=2500)
    parser.add_argument("--final-count", type=int, default=200, help="cases of each kind in the scores at the end; 0: none")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    return parser.parse_args()


def main():
    args = arguments()
    torch.backends.cuda.matmul.allow_tf32 = True
    trainer = Trainer(args)
    trainer.resume()
    if trainer.used < trainer.length if trainer.length and args.seconds else trainer.step < args.steps:
        trainer.run()
    trainer.export()
    print(f"exported, {time.time() - BEGUN:.0f} s", flush=True)
    if not args.final_count:
        return
    kinds = ["chat", "arithmetic", "copy", "recall_1500", "recall_6000", "tool_call", "tool_result", "agent"]
    scores = {k: trainer.evaluate([k], min(args.final_count, 100) if k == "recall_6000" else args.final_count)[k] for k in kinds}
    trainer.note(f"final at step {trainer.step}: exact/token/draft: {evaluate.show(scores)}; {time.time() - BEGUN:.0f} s")
    with open(os.path.join(args.out, "scores.json"), "w", encoding="utf-8") as target:
        json.dump({"step": trainer.step, "scores": scores}, target, indent=1)
    with open(os.path.join(args.out, "training.log"), "w", encoding="utf-8") as target:
        target.write("\n".join(trainer.log) + "\n")


if __name__ == "__main__":
    main()
