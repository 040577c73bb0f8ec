"""The architecture of ds4-tiny (the graph of DeepSeek V4 Flash at small dimensions) in plain PyTorch.

Written from the project's specification for training, golden values and comparison with transformers. Sequences
must be multiples of 128 tokens; `blocks` labels the dialogue of every 128-token block, so that packed rows never
look into one another. Parameters carry the published checkpoint names, routed experts stacked into one tensor.
"""
from dataclasses import asdict, dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F

import quant_sim
from sinkhorn import sinkhorn

WINDOW = 128
NEG = -1.0e30


@dataclass
class Config:
    vocab_size: int = 2048
    hidden: int = 256
    heads: int = 4
    head_dim: int = 512
    rope_dim: int = 64
    q_lora: int = 256
    o_groups: int = 2
    o_lora: int = 128
    experts: int = 8
    active_experts: int = 6
    expert_width: int = 256
    hash_layers: int = 3
    ratios: list = field(default_factory=lambda: [0, 0, 4, 128, 4, 4])
    index_heads: int = 8
    index_dim: int = 128
    index_topk: int = 512
    streams: int = 4
    sinkhorn_iterations: int = 20
    eps: float = 1e-6
    swiglu_limit: float = 10.0
    route_scale: float = 1.5
    rope_theta: float = 10000.0
    compress_rope_theta: float = 160000.0
    yarn_factor: float = 16.0
    yarn_original: int = 65536
    yarn_fast: int = 32
    yarn_slow: int = 1

    def published(self):
        """config.json of the published layout."""
        return {
            "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "attention_bias": False,
            "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "hc_eps": self.eps, "hc_mult": self.streams,
            "hc_sinkhorn_iters": self.sinkhorn_iterations, "head_dim": self.head_dim, "hidden_act": "silu",
            "hidden_size": self.hidden, "index_head_dim": self.index_dim, "index_n_heads": self.index_heads,
            "index_topk": self.index_topk, "initializer_range": 0.02, "max_position_embeddings": 1048576,
            "moe_intermediate_size": self.expert_width, "n_routed_experts": self.experts, "n_shared_experts": 1,
            "norm_topk_prob": True, "num_attention_heads": self.heads, "num_experts_per_tok": self.active_experts,
            "num_hidden_layers": len(self.ratios), "num_hash_layers": self.hash_layers, "num_key_value_heads": 1,
            "num_nextn_predict_layers": 1, "o_groups": self.o_groups, "o_lora_rank": self.o_lora,
            "q_lora_rank": self.q_lora, "qk_rope_head_dim": self.rope_dim, "rms_norm_eps": self.eps,
            "rope_scaling": {"type": "yarn", "factor": self.yarn_factor, "beta_fast": self.yarn_fast,
                             "beta_slow": self.yarn_slow, "original_max_position_embeddings": self.yarn_original},
            "rope_theta": self.rope_theta, "routed_scaling_factor": self.route_scale, "scoring_func": "sqrtsoftplus",
            "sliding_window": WINDOW, "swiglu_limit": self.swiglu_limit, "tie_word_embeddings": False,
            "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": self.vocab_size,
            "compress_rope_theta": self.compress_rope_theta, "compress_ratios": self.ratios + [0], "expert_dtype": "fp4",
        }

    @classmethod
    def from_published(cls, c):
        rope = c["rope_scaling"]
        return cls(vocab_size=c["vocab_size"], hidden=c["hidden_size"], heads=c["num_attention_heads"], head_dim=c["head_dim"],
                   rope_dim=c["qk_rope_head_dim"], q_lora=c["q_lora_rank"], o_groups=c["o_groups"], o_lora=c["o_lora_rank"],
                   experts=c["n_routed_experts"], active_experts=c["num_experts_per_tok"],
                   expert_width=c["moe_intermediate_size"], hash_layers=c["num_hash_layers"],
                   ratios=c["compress_ratios"][:c["num_hidden_layers"]], index_heads=c["index_n_heads"],
                   index_dim=c["index_head_dim"], index_topk=c["index_topk"], streams=c["hc_mult"],
                   sinkhorn_iterations=c["hc_sinkhorn_iters"], eps=c["rms_norm_eps"], swiglu_limit=c["swiglu_limit"],
                   route_scale=c["routed_scaling_factor"], rope_theta=c["rope_theta"],
                   compress_rope_theta=c["compress_rope_theta"], yarn_factor=rope["factor"],
                   yarn_original=rope["original_max_position_embeddings"], yarn_fast=rope["beta_fast"], yarn_slow=rope["beta_slow"])

    def dictionary(self):
        return asdict(self)


@dataclass
class Mode:
    """How to run: matmul dtype, FP8/FP4 cache round trips, indexer loss, and whether the indexer selects."""
    dtype: torch.dtype = torch.float32
    round_trips: bool = False
    index_loss: bool = False
    select: bool = True


def rope_frequencies(cfg, compressed):
    """32 angular frequencies, f64 arithmetic rounded to f32."""
    theta = cfg.compress_rope_theta if compressed else cfg.rope_theta
    pairs = torch.arange(cfg.rope_dim // 2, dtype=torch.float64)
    freq = theta ** (-2 * pairs / cfg.rope_dim)
    if compressed:
        def bound(rotations):
            return cfg.rope_dim * torch.log(torch.tensor(cfg.yarn_original / (2 * torch.pi * rotations), dtype=torch.float64)) / (
                2 * torch.log(torch.tensor(theta, dtype=torch.float64)))
        low, high = torch.floor(bound(cfg.yarn_fast)), torch.ceil(bound(cfg.yarn_slow))
        ramp = ((pairs - low) / (high - low)).clamp(0, 1)
        freq = freq * (1 - ramp) + freq / cfg.yarn_factor * ramp
    return freq.float()


def rotate(x, cos, sin):
    """Rotates adjacent pairs of the last dimension; cos/sin broadcast over it."""
    pairs = x.float().reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)


def rotate_tail(x, cos, sin, tail):
    return torch.cat([x[..., :-tail].float(), rotate(x[..., -tail:], cos, sin)], -1)


def rms(x, eps, weight=None):
    x = x.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x if weight is None else x * weight


class Weight(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape))


class Compressor(nn.Module):
    def __init__(self, cfg, ratio, head_dim):
        super().__init__()
        width = head_dim * (2 if ratio == 4 else 1)
        self.ratio, self.head_dim, self.eps = ratio, head_dim, cfg.eps
        self.wkv, self.wgate = Weight(width, cfg.hidden), Weight(width, cfg.hidden)
        self.ape = nn.Parameter(torch.empty(ratio, width))
        self.norm = Weight(head_dim)

    def forward(self, n, first_of_dialogue, cos, sin, tail, dtype):
        """n [B,T,d] -> rows [B,T/ratio,head_dim] f32, normalised and rotated at their first token."""
        b, t, _ = n.shape
        rows, h = t // self.ratio, self.head_dim
        keys = F.linear(n.to(dtype), self.wkv.weight.to(dtype)).float().view(b, rows, self.ratio, -1)
        gate = F.linear(n.to(dtype), self.wgate.weight.to(dtype)).float().view(b, rows, self.ratio, -1) + self.ape
        if self.ratio == 4:
            keys = torch.cat([F.pad(keys[:, :-1, :, :h], (0, 0, 0, 0, 1, 0)), keys[..., h:]], 2)
            previous = F.pad(gate[:, :-1, :, :h], (0, 0, 0, 0, 1, 0)).masked_fill(first_of_dialogue[:, :, None, None], NEG)
            gate = torch.cat([previous, gate[..., h:]], 2)
        row = (torch.softmax(gate, 2) * keys).sum(2)
        return rotate_tail(rms(row, self.eps, self.norm.weight), cos[::self.ratio], sin[::self.ratio], tail)


class Indexer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.wq_b = Weight(cfg.index_heads * cfg.index_dim, cfg.q_lora)
        self.weights_proj = Weight(cfg.index_heads, cfg.hidden)
        self.compressor = Compressor(cfg, 4, cfg.index_dim)
        self.register_buffer("hadamard", quant_sim.hadamard(cfg.index_dim), persistent=False)

    def forward(self, n, qr, first_of_dialogue, cos, sin, mode):
        """Scores [B,T,rows] f32 of the compressed rows for every query, before masking."""
        cfg, (b, t, _) = self.cfg, n.shape
        q = F.linear(qr.to(mode.dtype), self.wq_b.weight.to(mode.dtype)).view(b, t, cfg.index_heads, cfg.index_dim)
        q = rotate_tail(q, cos[:, None], sin[:, None], cfg.rope_dim)
        k = self.compressor(n, first_of_dialogue, cos, sin, cfg.rope_dim, mode.dtype)
        if mode.round_trips:
            q = quant_sim.fp4_blocks(q @ self.hadamard)
            k = quant_sim.fp4_blocks(k @ self.hadamard)
        weights = F.linear(n.float(), self.weights_proj.weight.float()) * (cfg.index_dim * cfg.index_heads) ** -0.5
        dots = torch.matmul(q.to(mode.dtype).reshape(b, t * cfg.index_heads, cfg.index_dim), k.to(mode.dtype).transpose(1, 2))
        return (torch.relu(dots.view(b, t, cfg.index_heads, -1).float()) * weights[..., None]).sum(2)


class Attention(nn.Module):
    def __init__(self, cfg, ratio):
        super().__init__()
        self.cfg, self.ratio = cfg, ratio
        self.wq_a, self.q_norm = Weight(cfg.q_lora, cfg.hidden), Weight(cfg.q_lora)
        self.wq_b = Weight(cfg.heads * cfg.head_dim, cfg.q_lora)
        self.wkv, self.kv_norm = Weight(cfg.head_dim, cfg.hidden), Weight(cfg.head_dim)
        self.wo_a = Weight(cfg.o_groups * cfg.o_lora, cfg.heads * cfg.head_dim // cfg.o_groups)
        self.wo_b = Weight(cfg.hidden, cfg.o_groups * cfg.o_lora)
        self.attn_sink = nn.Parameter(torch.zeros(cfg.heads))
        if ratio:
            self.compressor = Compressor(cfg, ratio, cfg.head_dim)
        if ratio == 4:
            self.indexer = Indexer(cfg)

    def _round_trip(self, rows, mode):
        if not mode.round_trips:
            return rows
        tail = self.cfg.rope_dim
        return torch.cat([quant_sim.fp8_blocks(rows[..., :-tail]), rows[..., -tail:]], -1)

    def forward(self, n, geometry, mode):
        """n [B,T,d] f32 -> (output [B,T,d] f32, indexer loss)."""
        cfg, (b, t, _) = self.cfg, n.shape
        cos, sin = geometry["rope_compressed" if self.ratio else "rope_plain"]
        qr = rms(F.linear(n.to(mode.dtype), self.wq_a.weight.to(mode.dtype)), cfg.eps, self.q_norm.weight)
        q = F.linear(qr.to(mode.dtype), self.wq_b.weight.to(mode.dtype)).view(b, t, cfg.heads, cfg.head_dim)
        q = rotate_tail(rms(q, cfg.eps), cos[:, None], sin[:, None], cfg.rope_dim).to(mode.dtype)
        kv = rms(F.linear(n.to(mode.dtype), self.wkv.weight.to(mode.dtype)), cfg.eps, self.kv_norm.weight)
        kv = self._round_trip(rotate_tail(kv, cos, sin, cfg.rope_dim), mode).to(mode.dtype)
        near_keys, near_scores = self._window(q, kv, geometry)
        peak = torch.maximum(near_scores.detach().amax(-1), self.attn_sink.detach())
        far_scores, loss = None, n.new_zeros(())
        if self.ratio:
            rows = self.compressor(n, geometry["first4"], cos, sin, cfg.rope_dim, mode.dtype)
            rows = self._round_trip(rows, mode).to(mode.dtype)
            visible = geometry["visible4" if self.ratio == 4 else "visible128"]
            index_scores = None
            if self.ratio == 4 and (mode.index_loss or (mode.select and rows.shape[1] > cfg.index_topk)):
                index_scores = self.indexer(n.detach(), qr.detach(), geometry["first4"], cos, sin, mode)
                index_scores = index_scores.masked_fill(~visible, NEG)
                if mode.select and rows.shape[1] > cfg.index_topk:
                    floor = torch.topk(index_scores.detach(), cfg.index_topk, -1)[0][..., -1:]
                    visible = visible & (index_scores.detach() >= floor)
            far_scores = torch.matmul(q.reshape(b, t * cfg.heads, cfg.head_dim), rows.transpose(1, 2))
            far_scores = far_scores.view(b, t, cfg.heads, -1).float() * cfg.head_dim ** -0.5
            far_scores = far_scores.masked_fill(~visible[:, :, None], NEG)
            peak = torch.maximum(peak, far_scores.detach().amax(-1))
        near = torch.exp(near_scores - peak[..., None])
        total = near.sum(-1) + torch.exp(self.attn_sink - peak)
        if far_scores is not None:
            far = torch.exp(far_scores - peak[..., None])
            total = total + far.sum(-1)
        near = (near / total[..., None]).to(mode.dtype)
        blocks = t // WINDOW
        out = torch.matmul(near.reshape(b, blocks, WINDOW * cfg.heads, 2 * WINDOW), near_keys).reshape(b, t, cfg.heads, cfg.head_dim)
        if far_scores is not None:
            far = far / total[..., None]
            out = out + torch.matmul(far.to(mode.dtype).reshape(b, t * cfg.heads, -1), rows).view(b, t, cfg.heads, cfg.head_dim)
            if self.ratio == 4 and mode.index_loss:
                target = far.detach().mean(2)
                log_share = torch.log_softmax(index_scores.masked_fill(~visible, NEG), -1)
                loss = -(target * log_share.masked_fill(~visible, 0.0)).sum(-1).mean()
        out = rotate_tail(out, cos[:, None], -sin[:, None], cfg.rope_dim).to(mode.dtype)
        groups = out.reshape(b, t, cfg.o_groups, -1)
        low = torch.einsum("btgi,goi->btgo", groups, self.wo_a.weight.to(mode.dtype).view(cfg.o_groups, cfg.o_lora, -1))
        return F.linear(low.reshape(b, t, -1), self.wo_b.weight.to(mode.dtype)).float(), loss

    def _window(self, q, kv, geometry):
        """Keys of each block and its predecessor [B,blocks,256,hd], and masked scores [B,T,heads,256] f32."""
        cfg, (b, t, _) = self.cfg, kv.shape
        blocks = t // WINDOW
        current = kv.view(b, blocks, WINDOW, cfg.head_dim)
        keys = torch.cat([F.pad(current[:, :-1], (0, 0, 0, 0, 1, 0)), current], 2)
        scores = torch.matmul(q.reshape(b, blocks, WINDOW * cfg.heads, cfg.head_dim), keys.transpose(2, 3))
        scores = scores.view(b, blocks, WINDOW, cfg.heads, 2 * WINDOW).float() * cfg.head_dim ** -0.5
        scores = scores.masked_fill(~geometry["window"][:, :, :, None], NEG)
        return keys, scores.view(b, t, cfg.heads, 2 * WINDOW)


class Gate(nn.Module):
    def __init__(self, cfg, hashed):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cfg.experts, cfg.hidden))
        if hashed:
            self.register_buffer("tid2eid", torch.zeros(cfg.vocab_size, cfg.active_experts, dtype=torch.int64))
        else:
            self.register_buffer("bias", torch.zeros(cfg.experts))


class Experts(nn.Module):
    def __init__(self, count, cfg):
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(count, cfg.expert_width, cfg.hidden))
        self.w3 = nn.Parameter(torch.empty(count, cfg.expert_width, cfg.hidden))
        self.w2 = nn.Parameter(torch.empty(count, cfg.hidden, cfg.expert_width))


class SharedExpert(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.w1, self.w3 = Weight(cfg.expert_width, cfg.hidden), Weight(cfg.expert_width, cfg.hidden)
        self.w2 = Weight(cfg.hidden, cfg.expert_width)


class FeedForward(nn.Module):
    def __init__(self, cfg, hashed):
        super().__init__()
        self.cfg, self.hashed = cfg, hashed
        self.gate, self.experts, self.shared_experts = Gate(cfg, hashed), Experts(cfg.experts, cfg), SharedExpert(cfg)

    def forward(self, n, ids, weights, mode):
        """n [B,T,d] f32, ids [B,T], weights (w1, w3, w2) of the experts -> (output, tokens per expert).

        Every expert is computed for every token and weighted by its route (zero where not selected): at these
        sizes one dense product is faster than a gather.
        """
        cfg, (b, t, d) = self.cfg, n.shape
        scores = torch.sqrt(F.softplus(F.linear(n.float(), self.gate.weight.float())))
        if self.hashed:
            chosen = self.gate.tid2eid[ids]
        else:
            chosen = torch.topk(scores.detach() + self.gate.bias, cfg.active_experts, -1)[1]
        mask = (chosen[..., None] == torch.arange(cfg.experts, device=n.device)).any(-2)
        picked = scores * mask
        route = picked / picked.sum(-1, keepdim=True).clamp(min=2.0 ** -14) * cfg.route_scale
        w1, w3, w2 = (x.to(mode.dtype) for x in weights)
        x = n.to(mode.dtype)
        limit = cfg.swiglu_limit
        up = F.linear(x, w3.reshape(-1, d)).float().clamp(-limit, limit)
        mid = F.silu(F.linear(x, w1.reshape(-1, d)).float().clamp(max=limit)) * up
        mid = mid.view(b, t, cfg.experts, -1) * route[..., None]
        out = F.linear(mid.reshape(b, t, -1).to(mode.dtype), w2.permute(1, 0, 2).reshape(d, -1)).float()
        s = self.shared_experts
        up = F.linear(x, s.w3.weight.to(mode.dtype)).float().clamp(-limit, limit)
        mid = F.silu(F.linear(x, s.w1.weight.to(mode.dtype)).float().clamp(max=limit)) * up
        out = out + F.linear(mid.to(mode.dtype), s.w2.weight.to(mode.dtype)).float()
        return out, mask.float().mean((0, 1))


class Block(nn.Module):
    def __init__(self, cfg, ratio, hashed):
        super().__init__()
        self.cfg = cfg
        self.attn, self.ffn = Attention(cfg, ratio), FeedForward(cfg, hashed)
        self.attn_norm, self.ffn_norm = Weight(cfg.hidden), Weight(cfg.hidden)
        mixes = cfg.streams * (2 + cfg.streams)
        for site in ("attn", "ffn"):
            setattr(self, f"hc_{site}_fn", nn.Parameter(torch.empty(mixes, cfg.streams * cfg.hidden)))
            setattr(self, f"hc_{site}_base", nn.Parameter(torch.zeros(mixes)))
            setattr(self, f"hc_{site}_scale", nn.Parameter(torch.ones(3)))

    def _pre(self, x, site):
        cfg, s = self.cfg, self.cfg.streams
        fn, base, scale = (getattr(self, f"hc_{site}_{part}") for part in ("fn", "base", "scale"))
        flat = x.flatten(-2)
        mix = F.linear(flat, fn.float()) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + cfg.eps)
        pre = torch.sigmoid(mix[..., :s] * scale[0] + base[:s]) + cfg.eps
        post = 2 * torch.sigmoid(mix[..., s:2 * s] * scale[1] + base[s:2 * s])
        comb = (mix[..., 2 * s:] * scale[2] + base[2 * s:]).view(*mix.shape[:-1], s, s)
        return (pre[..., None] * x).sum(-2), post, sinkhorn(comb, cfg.sinkhorn_iterations)

    def _post(self, y, x, post, comb):
        mixed = (comb[..., None] * x.unsqueeze(-2)).sum(-3)
        return post[..., None] * y.unsqueeze(-2) + mixed

    def forward(self, x, ids, geometry, weights, mode):
        """x [B,T,4,d] f32 -> (x, indexer loss, expert load)."""
        u, post, comb = self._pre(x, "attn")
        y, loss = self.attn(rms(u, self.cfg.eps, self.attn_norm.weight), geometry, mode)
        x = self._post(y, x, post, comb)
        u, post, comb = self._pre(x, "ffn")
        y, load = self.ffn(rms(u, self.cfg.eps, self.ffn_norm.weight), ids, weights, mode)
        return self._post(y, x, post, comb), loss, load


def head_hidden(x, fn, base, scale, norm, eps):
    flat = x.flatten(-2)
    mix = F.linear(flat, fn.float()) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + eps)
    weights = torch.sigmoid(mix * scale[0] + base) + eps
    return rms((weights[..., None] * x).sum(-2), eps, norm)


class Mtp(Block):
    def __init__(self, cfg):
        super().__init__(cfg, 0, False)
        self.e_proj, self.h_proj = Weight(cfg.hidden, cfg.hidden), Weight(cfg.hidden, cfg.hidden)
        self.enorm, self.hnorm, self.norm = Weight(cfg.hidden), Weight(cfg.hidden), Weight(cfg.hidden)
        self.hc_head_fn = nn.Parameter(torch.empty(cfg.streams, cfg.streams * cfg.hidden))
        self.hc_head_base = nn.Parameter(torch.zeros(cfg.streams))
        self.hc_head_scale = nn.Parameter(torch.ones(1))

    def fuse(self, x, next_embedding, mode):
        e = F.linear(rms(next_embedding, self.cfg.eps, self.enorm.weight).to(mode.dtype), self.e_proj.weight.to(mode.dtype))
        h = F.linear(rms(x, self.cfg.eps, self.hnorm.weight).to(mode.dtype), self.h_proj.weight.to(mode.dtype))
        return e.float().unsqueeze(-2) + h.float()


class TinyModel(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed, self.head, self.norm = Weight(cfg.vocab_size, cfg.hidden), Weight(cfg.vocab_size, cfg.hidden), Weight(cfg.hidden)
        self.layers = nn.ModuleList(Block(cfg, r, i < cfg.hash_layers) for i, r in enumerate(cfg.ratios))
        self.mtp = nn.ModuleList([Mtp(cfg)])
        self.hc_head_fn = nn.Parameter(torch.empty(cfg.streams, cfg.streams * cfg.hidden))
        self.hc_head_base = nn.Parameter(torch.zeros(cfg.streams))
        self.hc_head_scale = nn.Parameter(torch.ones(1))
        for name, compressed in (("plain", False), ("compressed", True)):
            self.register_buffer(f"frequencies_{name}", rope_frequencies(cfg, compressed), persistent=False)

    def geometry(self, blocks):
        """Masks and rotation tables for rows whose 128-token blocks carry the labels `blocks` [B,T/128]."""
        b, count = blocks.shape
        device, t = blocks.device, count * WINDOW
        position = torch.arange(t, device=device)
        out = {}
        for name in ("plain", "compressed"):
            angle = position.float()[:, None] * getattr(self, f"frequencies_{name}")
            out[f"rope_{name}"] = (torch.cos(angle), torch.sin(angle))
        same_as_previous = F.pad(blocks[:, 1:] == blocks[:, :-1], (1, 0))
        i, j = torch.arange(WINDOW, device=device)[:, None], torch.arange(2 * WINDOW, device=device)[None]
        band = (j > i) & (j <= i + WINDOW)
        out["window"] = band & ((j >= WINDOW) | same_as_previous[:, :, None, None])
        rows = torch.arange(t // 4, device=device)
        out["first4"] = ((rows % 32 == 0) & ~same_as_previous[:, rows // 32]) if count else rows
        label = blocks.repeat_interleave(WINDOW, 1)
        row_label = blocks.repeat_interleave(WINDOW // 4, 1)
        out["visible4"] = (rows[None] < (position[:, None] + 1) // 4) & (row_label[:, None] == label[:, :, None])
        rows = torch.arange(count, device=device)
        out["visible128"] = (rows[None] < (position[:, None] + 1) // 128) & (blocks[:, None] == label[:, :, None])
        return out

    def expert_weights(self, quantise):
        """(w1, w3, w2) of every layer and of the MTP block, through MXFP4 if `quantise`."""
        layers = [m.ffn.experts for m in [*self.layers, *self.mtp]]
        weights = [(e.w1, e.w3, e.w2) for e in layers]
        if not quantise:
            return weights
        if self.cfg.hidden != self.cfg.expert_width:
            return [tuple(quant_sim.mxfp4(x) for x in w) for w in weights]
        # one call over all matrices: they have one shape
        changed = quant_sim.mxfp4(torch.stack([x for w in weights for x in w])).unbind(0)
        return [changed[i:i + 3] for i in range(0, len(changed), 3)]

    def trunk(self, ids, geometry, weights, mode, trace=None):
        x = F.embedding(ids, self.embed.weight).unsqueeze(-2).expand(-1, -1, self.cfg.streams, -1).float()
        losses, loads = [], []
        for layer, experts in zip(self.layers, weights):
            x, loss, load = layer(x, ids, geometry, experts, mode)
            losses.append(loss)
            loads.append(load)
            if trace is not None:
                trace.append(x)
        return x, losses, loads

    def draft(self, x, next_ids, geometry, weights, mode):
        """Normalised hidden state of the MTP block at every position i, from x_i and token i+1; predicts token i+2."""
        mtp = self.mtp[0]
        fused = mtp.fuse(x, F.embedding(next_ids, self.embed.weight), mode)
        y, _, load = mtp(fused, next_ids, geometry, weights[-1], mode)
        return head_hidden(y, mtp.hc_head_fn, mtp.hc_head_base, mtp.hc_head_scale, mtp.norm.weight, self.cfg.eps), load

    def hidden(self, x):
        return head_hidden(x, self.hc_head_fn, self.hc_head_base, self.hc_head_scale, self.norm.weight, self.cfg.eps)

    def logits(self, hidden, mode):
        return F.linear(hidden.to(mode.dtype), self.head.weight.to(mode.dtype)).float()

    @torch.no_grad()
    def run(self, ids, mode, blocks=None, with_draft=False, quantise=False, trace=None):
        """Logits [B,T,V] (and MTP logits) for any length; pads to a multiple of 128."""
        b, t = ids.shape
        padded = F.pad(ids, (0, -t % WINDOW), value=2)
        if blocks is None:
            blocks = torch.ones(b, padded.shape[1] // WINDOW, dtype=torch.int64, device=ids.device)
        geometry, weights = self.geometry(blocks), self.expert_weights(quantise)
        x, _, _ = self.trunk(padded, geometry, weights, mode, trace)
        logits = self.logits(self.hidden(x), mode)[:, :t]
        if not with_draft:
            return logits
        shifted = F.pad(padded[:, 1:], (0, 1), value=2)
        drafted, _ = self.draft(x, shifted, geometry, weights, mode)
        return logits, self.logits(drafted, mode)[:, :t]


def initialise(model, seed):
    """Random start: scaled normal matrices, specialised compressor slots, streams told apart by their bases."""
    torch.manual_seed(seed)
    cfg = model.cfg
    for name, p in model.named_parameters():
        leaf = name.split(".")[-2] if name.endswith(".weight") else name.split(".")[-1]
        if "norm" in leaf:
            nn.init.ones_(p)
        elif leaf in ("embed", "head"):
            nn.init.normal_(p, std=0.5 if leaf == "embed" else 0.03)
        elif leaf.endswith("_fn"):
            nn.init.normal_(p, std=0.02)
        elif leaf.endswith("_scale"):
            nn.init.constant_(p, 0.3)
        elif leaf == "ape":
            nn.init.normal_(p, std=1.5 if p.shape[0] == 4 else 1.0)
        elif leaf == "attn_sink" or leaf.endswith("_base"):
            nn.init.zeros_(p)
        elif leaf == "wgate":
            nn.init.normal_(p, std=0.3 * p.shape[-1] ** -0.5)
        elif leaf in ("wo_b", "w2"):
            nn.init.normal_(p, std=0.3 * p.shape[-1] ** -0.5)
        else:
            nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    s = cfg.streams
    with torch.no_grad():
        for index, block in enumerate([*model.layers, *model.mtp]):
            for offset, site in enumerate(("attn", "ffn")):
                base = getattr(block, f"hc_{site}_base")
                base[:s] = -2.0
                base[(2 * index + offset) % s] = 2.0
                base[s:2 * s] = 0.5 * torch.randn(s)
                base[2 * s:] = 4.0 * torch.eye(s).flatten()
            if block.ffn.hashed:
                order = torch.rand(cfg.vocab_size, cfg.experts).argsort(-1)
                block.ffn.gate.tid2eid.copy_(order[:, :cfg.active_experts])
    return model
