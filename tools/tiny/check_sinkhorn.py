"""Compares the fused Sinkhorn kernels with the plain form in f64, values and gradients (needs a GPU)."""
import torch

import sinkhorn


def main():
    torch.manual_seed(1)
    logits = (torch.randn(1000, 3, 4, 4, device="cuda") * 3).requires_grad_(True)
    upstream = torch.randn_like(logits)
    plain = sinkhorn.sinkhorn_plain(logits.double(), 20)
    plain_grad, = torch.autograd.grad(plain, logits, upstream.double())
    fused = sinkhorn.sinkhorn(logits, 20)
    fused_grad, = torch.autograd.grad(fused, logits, upstream)
    values, grads = (plain - fused).abs().max().item(), (plain_grad - fused_grad).abs().max().item()
    print(f"sinkhorn: value difference {values:.2e}, gradient difference {grads:.2e} of {plain_grad.abs().max().item():.2f}")
    assert values < 1e-5 and grads < 1e-4


if __name__ == "__main__":
    main()
