"""Round trips through the small formats of the architecture, with straight-through gradients (plain torch ops)."""
import torch


def _power_of_two(exponent):
    return ((exponent + 127) << 23).view(torch.float32)


def _ceil_log2(value):
    bits = value.float().view(torch.int32)
    return ((bits >> 23) & 255) - 127 + ((bits & 0x7FFFFF) != 0).to(torch.int32)


def _floor_log2(value):
    return ((value.view(torch.int32) >> 23) & 255) - 127


def round_e4m3(y):
    """Nearest E4M3FN value of |y| <= 448, ties to even."""
    step = _power_of_two(_floor_log2(y.abs()).clamp(min=-6) - 3)
    return torch.round(y / step) * step


def round_e2m1(y):
    """Nearest value of {0, .5, 1, 1.5, 2, 3, 4, 6} with sign, ties to even codes."""
    a = y.abs()
    r = torch.where(a < 2, torch.round(a * 2) / 2, torch.where(a < 4, torch.round(a), torch.round(a / 2) * 2)).clamp(max=6)
    return torch.copysign(r, y)


def _straight_through(x, rounded):
    return x + (rounded - x).detach()


def fp8_blocks(x):
    """x [..., 64 n] through E4M3 in blocks of 64 with a power-of-two scale."""
    shape = x.shape
    v = x.float().reshape(*shape[:-1], shape[-1] // 64, 64)
    amax = v.abs().amax(-1, keepdim=True).clamp(min=1e-4)
    scale = _power_of_two(_ceil_log2(amax * (1.0 / 448.0)))
    rounded = round_e4m3((v / scale).clamp(-448.0, 448.0)) * scale
    return _straight_through(x, rounded.reshape(shape).to(x.dtype))


def fp4_blocks(x):
    """x [..., 32 n] through E2M1 in blocks of 32 with a power-of-two scale that never clips."""
    shape = x.shape
    v = x.float().reshape(*shape[:-1], shape[-1] // 32, 32)
    amax = v.abs().amax(-1, keepdim=True).clamp(min=6 * 2.0 ** -126)
    scale = _power_of_two(_ceil_log2(amax / 6.0))
    rounded = round_e2m1((v / scale).clamp(-6.0, 6.0)) * scale
    return _straight_through(x, rounded.reshape(shape).to(x.dtype))


def mxfp4_parts(w):
    """Weights [..., 32 n] f32 -> (grid values, exponents) of MXFP4: the better of two scales by squared error."""
    shape = w.shape
    v = w.reshape(*shape[:-1], shape[-1] // 32, 32)
    high = _ceil_log2(v.abs().amax(-1, keepdim=True).clamp(min=2.0 ** -100) / 6.0)
    best_grid, best_error = None, None
    for exponent in (high, high - 1):
        scale = _power_of_two(exponent)
        grid = round_e2m1((v / scale).clamp(-6.0, 6.0))
        error = ((grid * scale - v) ** 2).sum(-1, keepdim=True)
        if best_grid is None:
            best_grid, best_error, best_exponent = grid, error, exponent
        else:
            better = error < best_error
            best_grid, best_exponent = torch.where(better, grid, best_grid), torch.where(better, exponent, best_exponent)
    return best_grid.reshape(shape), best_exponent.squeeze(-1)


def mxfp4(w):
    """Weights through MXFP4 (blocks of 32 along the last dimension), straight-through."""
    with torch.no_grad():
        grid, exponent = mxfp4_parts(w.detach())
        rounded = grid.reshape(*exponent.shape, 32) * _power_of_two(exponent).unsqueeze(-1)
    return w + (rounded.reshape(w.shape) - w).detach()


def hadamard(size=128):
    """Sylvester-Hadamard matrix scaled to be orthonormal."""
    h = torch.ones(1, 1)
    while h.shape[0] < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return h / size ** 0.5
