"""Reads the tensors of a GGUF file into published names as f32 (F32, F16, BF16, I32, Q8_0, MXFP4), independently of
the engine: for golden values of the file that ships and as a check of the converter."""
import struct

import torch

_VALUE = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
_LEAVES = {
    "attn_q_a.weight": "attn.wq_a.weight", "attn_q_b.weight": "attn.wq_b.weight", "attn_q_a_norm.weight": "attn.q_norm.weight",
    "attn_kv.weight": "attn.wkv.weight", "attn_kv_a_norm.weight": "attn.kv_norm.weight", "attn_sinks.weight": "attn.attn_sink",
    "attn_output_a.weight": "attn.wo_a.weight", "attn_output_b.weight": "attn.wo_b.weight", "attn_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight", "ffn_gate_inp.weight": "ffn.gate.weight", "exp_probs_b.bias": "ffn.gate.bias",
    "ffn_gate_tid2eid.weight": "ffn.gate.tid2eid", "ffn_gate_shexp.weight": "ffn.shared_experts.w1.weight",
    "ffn_up_shexp.weight": "ffn.shared_experts.w3.weight", "ffn_down_shexp.weight": "ffn.shared_experts.w2.weight",
    "ffn_gate_exps.weight": "ffn.experts.w1", "ffn_up_exps.weight": "ffn.experts.w3", "ffn_down_exps.weight": "ffn.experts.w2",
    "indexer.attn_q_b.weight": "attn.indexer.wq_b.weight", "indexer.proj.weight": "attn.indexer.weights_proj.weight",
}
for _site in ("attn", "ffn"):
    for _part in ("fn", "base", "scale"):
        _LEAVES[f"hc_{_site}_{_part}.weight"] = f"hc_{_site}_{_part}"
for _ours, _stem in (("attn.compressor", "attn_compressor"), ("attn.indexer.compressor", "indexer_compressor")):
    _LEAVES.update({f"{_stem}_ape.weight": f"{_ours}.ape", f"{_stem}_kv.weight": f"{_ours}.wkv.weight",
                    f"{_stem}_gate.weight": f"{_ours}.wgate.weight", f"{_stem}_norm.weight": f"{_ours}.norm.weight"})


def published_name(name):
    """GGUF tensor name -> name in TinyModel's state."""
    fixed = {"token_embd.weight": "embed.weight", "output.weight": "head.weight", "output_norm.weight": "norm.weight"}
    if name in fixed:
        return fixed[name]
    if name.startswith("output_hc_"):
        return "hc_head_" + name[len("output_hc_"):].removesuffix(".weight")
    prefix, rest = name.split(".", 2)[:2], name.split(".", 2)[2]
    stem = f"layers.{prefix[1]}." if prefix[0] == "blk" else "mtp.0."
    if rest in _LEAVES:
        return stem + _LEAVES[rest]
    return stem + (rest.removesuffix(".weight") if rest.startswith("hc_head_") else rest)


class _Reader:
    def __init__(self, path):
        with open(path, "rb") as source:
            self.data = source.read()
        self.at = 0

    def take(self, form):
        value = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def text(self):
        size = self.take("<Q")
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, size = self.take("<I"), self.take("<Q")
            return [self.value(inner) for _ in range(size)]
        return self.take(_VALUE[kind])


def _dequantise(raw, kind, shape):
    count = 1
    for size in shape:
        count *= size
    if kind in (0, 1, 30, 26):
        dtype = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16, 26: torch.int32}[kind]
        flat = torch.frombuffer(bytearray(raw[:count * (2 if kind in (1, 30) else 4)]), dtype=torch.int16 if kind == 30 else dtype)
        flat = flat.view(torch.bfloat16) if kind == 30 else flat
        return flat.reshape(shape) if kind == 26 else flat.float().reshape(shape)
    if kind == 8:
        blocks = torch.frombuffer(bytearray(raw[:count // 32 * 34]), dtype=torch.uint8).view(-1, 34)
        scale = blocks[:, :2].contiguous().view(torch.float16).float()
        return (scale * blocks[:, 2:].contiguous().view(torch.int8).float()).reshape(shape)
    if kind == 39:
        blocks = torch.frombuffer(bytearray(raw[:count // 32 * 17]), dtype=torch.uint8).view(-1, 17)
        scale = torch.exp2(blocks[:, :1].double() - 127).float()
        codes = torch.cat([blocks[:, 1:] & 15, blocks[:, 1:] >> 4], 1).long()
        return (scale * torch.tensor(_E2M1 + [-v for v in _E2M1])[codes]).reshape(shape)
    raise ValueError(f"tensor type {kind} is not one this reader knows")


def read(path):
    """(metadata, published name -> tensor)."""
    r = _Reader(path)
    if r.data[:4] != b"GGUF":
        raise ValueError(f"{path} is no GGUF file")
    r.at = 8
    tensor_count, value_count = r.take("<Q"), r.take("<Q")
    meta = {}
    for _ in range(value_count):
        key = r.text()
        meta[key] = r.value(r.take("<I"))
    infos = []
    for _ in range(tensor_count):
        name = r.text()
        shape = [r.take("<Q") for _ in range(r.take("<I"))][::-1]
        infos.append((name, shape, r.take("<I"), r.take("<Q")))
    step = meta.get("general.alignment", 32)
    base = -(-r.at // step) * step
    return meta, {published_name(n): _dequantise(r.data[base + at:], kind, shape) for n, shape, kind, at in infos}


def load(model, path):
    """Fills a TinyModel with the weights of a GGUF file; every tensor must be there."""
    _, tensors = read(path)
    state = {name: tensors[name].to(value.dtype) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model
