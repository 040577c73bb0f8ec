"""Sinkhorn normalisation of 4x4 matrices: a plain torch form, and a Triton kernel pair for training on a GPU.

Row softmax + eps, column normalisation, then (row, column) normalisations. The GPU backward walks the iterations
in reverse: it stores only the divisors and rebuilds every intermediate matrix from the final one.
"""
import torch

EPS = 1e-6


def sinkhorn_plain(logits, iterations):
    """logits [..., 4, 4] f32 -> doubly normalised matrices of the same shape."""
    p = torch.softmax(logits, -1) + EPS
    p = p / (p.sum(-2, keepdim=True) + EPS)
    for _ in range(iterations - 1):
        p = p / (p.sum(-1, keepdim=True) + EPS)
        p = p / (p.sum(-2, keepdim=True) + EPS)
    return p


try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

if triton is not None:

    @triton.jit
    def _forward_kernel(x_ptr, out_ptr, div_ptr, count, STEPS: tl.constexpr, EPSILON: tl.constexpr, ROWS: tl.constexpr):
        first = tl.program_id(0) * ROWS
        i = first + tl.arange(0, ROWS)[:, None, None]
        r = tl.arange(0, 4)[None, :, None]
        c = tl.arange(0, 4)[None, None, :]
        inside = i < count
        x = tl.load(x_ptr + i * 16 + r * 4 + c, mask=inside, other=0.0)
        p = tl.exp(x - tl.max(x, axis=2, keep_dims=True))
        p = p / tl.sum(p, axis=2, keep_dims=True) + EPSILON
        d = tl.sum(p, axis=1, keep_dims=True) + EPSILON
        p = p / d
        tl.store(div_ptr + i * (8 * STEPS) + 4 + c, d, mask=inside)
        for step in range(1, STEPS):
            e = tl.sum(p, axis=2, keep_dims=True) + EPSILON
            p = p / e
            tl.store(div_ptr + i * (8 * STEPS) + step * 8 + r, e, mask=inside)
            d = tl.sum(p, axis=1, keep_dims=True) + EPSILON
            p = p / d
            tl.store(div_ptr + i * (8 * STEPS) + step * 8 + 4 + c, d, mask=inside)
        tl.store(out_ptr + i * 16 + r * 4 + c, p, mask=inside)

    @triton.jit
    def _backward_kernel(out_ptr, div_ptr, grad_ptr, dx_ptr, count, STEPS: tl.constexpr, EPSILON: tl.constexpr,
                         ROWS: tl.constexpr):
        first = tl.program_id(0) * ROWS
        i = first + tl.arange(0, ROWS)[:, None, None]
        r = tl.arange(0, 4)[None, :, None]
        c = tl.arange(0, 4)[None, None, :]
        inside = i < count
        p = tl.load(out_ptr + i * 16 + r * 4 + c, mask=inside, other=0.25)
        g = tl.load(grad_ptr + i * 16 + r * 4 + c, mask=inside, other=0.0)
        for back in range(1, STEPS):
            step = STEPS - back
            d = tl.load(div_ptr + i * (8 * STEPS) + step * 8 + 4 + c, mask=inside, other=1.0)
            g = (g - tl.sum(g * p, axis=1, keep_dims=True)) / d
            p = p * d
            e = tl.load(div_ptr + i * (8 * STEPS) + step * 8 + r, mask=inside, other=1.0)
            g = (g - tl.sum(g * p, axis=2, keep_dims=True)) / e
            p = p * e
        d = tl.load(div_ptr + i * (8 * STEPS) + 4 + c, mask=inside, other=1.0)
        g = (g - tl.sum(g * p, axis=1, keep_dims=True)) / d
        p = p * d - EPSILON
        g = p * (g - tl.sum(g * p, axis=2, keep_dims=True))
        tl.store(dx_ptr + i * 16 + r * 4 + c, g, mask=inside)

    _ROWS = 64

    @torch.library.custom_op("ds4tiny::sinkhorn", mutates_args=())
    def sinkhorn_op(logits: torch.Tensor, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = logits.contiguous()
        count = x.numel() // 16
        out = torch.empty_like(x)
        divisors = torch.empty(count, 8 * iterations, device=x.device, dtype=torch.float32)
        _forward_kernel[(triton.cdiv(count, _ROWS),)](x, out, divisors, count, iterations, EPS, _ROWS)
        return out, divisors

    @sinkhorn_op.register_fake
    def _(logits, iterations):
        count = logits.numel() // 16
        return (torch.empty_like(logits, memory_format=torch.contiguous_format),
                logits.new_empty(count, 8 * iterations, dtype=torch.float32))

    @torch.library.custom_op("ds4tiny::sinkhorn_backward", mutates_args=())
    def sinkhorn_backward(out: torch.Tensor, divisors: torch.Tensor, grad: torch.Tensor, iterations: int) -> torch.Tensor:
        g = grad.contiguous()
        count = out.numel() // 16
        dx = torch.empty_like(g)
        _backward_kernel[(triton.cdiv(count, _ROWS),)](out, divisors, g, dx, count, iterations, EPS, _ROWS)
        return dx

    @sinkhorn_backward.register_fake
    def _(out, divisors, grad, iterations):
        return torch.empty_like(grad, memory_format=torch.contiguous_format)

    def _setup(ctx, inputs, output):
        ctx.iterations = inputs[1]
        ctx.save_for_backward(output[0], output[1])

    def _backward(ctx, grad_out, grad_divisors):
        out, divisors = ctx.saved_tensors
        return sinkhorn_backward(out, divisors, grad_out, ctx.iterations), None

    sinkhorn_op.register_autograd(_backward, setup_context=_setup)


USE_TRITON = True


def sinkhorn(logits, iterations):
    """Doubly normalised [..., 4, 4]; the fused kernels on a GPU, plain torch elsewhere."""
    if triton is not None and USE_TRITON and logits.is_cuda:
        return sinkhorn_op(logits, iterations)[0]
    return sinkhorn_plain(logits, iterations)
