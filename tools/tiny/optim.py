"""Optimisers of the training: Muon for the matrices, AdamW for everything else, with per-kind learning rates."""
import torch

_MUON_LEAVES = {"wq_a", "wq_b", "wkv", "wgate", "wo_a", "wo_b", "w1", "w2", "w3", "e_proj", "h_proj"}


def _leaf(name):
    parts = name.split(".")
    return parts[-2] if parts[-1] == "weight" else parts[-1]


def orthogonalise(g, steps=5):
    """Nearest semi-orthogonal matrices of a stack [n, r, c], by the quintic Newton-Schulz iteration in bf16."""
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(1, 2)
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445, alpha=1.0)
    return x.transpose(1, 2) if tall else x


class Muon:
    """Momentum, then orthogonalised updates; matrices of one shape are processed as one stack."""

    def __init__(self, named, momentum=0.95, decay=0.02):
        self.momentum, self.decay, self.groups = momentum, decay, {}
        for name, p, parts in named:
            shape = (p.numel() // parts // p.shape[-1], p.shape[-1])
            self.groups.setdefault(shape, []).append(p)
        self.buffers = {shape: torch.zeros(sum(p.numel() for p in ps) // (shape[0] * shape[1]), *shape, device=ps[0].device)
                        for shape, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, ps in self.groups.items():
            grad = torch.cat([p.grad.reshape(-1, *shape) for p in ps])
            buffer = self.buffers[shape].lerp_(grad, 1 - self.momentum)
            update = orthogonalise(grad.lerp(buffer, self.momentum)).float() * (-rate * max(1.0, shape[0] / shape[1]) ** 0.5)
            pieces = update.split([p.numel() // (shape[0] * shape[1]) for p in ps])
            torch._foreach_mul_(ps, 1 - rate * self.decay)
            torch._foreach_add_(ps, [u.reshape(p.shape) for u, p in zip(pieces, ps)])

    def state_dict(self):
        return {str(shape): buffer for shape, buffer in self.buffers.items()}

    def load_state_dict(self, state):
        for shape, buffer in self.buffers.items():
            buffer.copy_(state[str(shape)])


def _adam_rate(leaf):
    if leaf == "embed":
        return 4e-3
    if leaf == "head":
        return 2e-3
    if leaf.endswith("_fn"):
        return 4e-4
    if leaf == "ape":
        return 4e-3
    return 1e-3 if leaf in ("gate", "weight", "weights_proj") else 2e-3


def build(model, muon_rate):
    """(muon, adam); adam's groups carry `base` rates that the schedule scales."""
    matrices, groups = [], {}
    for name, p in model.named_parameters():
        leaf = _leaf(name)
        if leaf in _MUON_LEAVES:
            parts = p.shape[0] if p.dim() == 3 else model.cfg.o_groups if leaf == "wo_a" else 1
            matrices.append((name, p, parts))
        else:
            groups.setdefault(_adam_rate(leaf), []).append(p)
    muon = Muon(matrices)
    muon.base = muon_rate
    fused = {"fused": True} if torch.cuda.is_available() else {}
    adam = torch.optim.AdamW([{"params": ps, "lr": rate, "base": rate} for rate, ps in groups.items()], betas=(0.9, 0.97),
                             eps=1e-9, weight_decay=0.0, **fused)
    return muon, adam
