"""Safetensors reading and writing, and the published checkpoint layout of a TinyModel."""
import json
import os
import struct

import torch

import quant_sim

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
          "I8": torch.int8, "U8": torch.uint8}
NAMES = {v: k for k, v in DTYPES.items()}


def write_safetensors(path, tensors):
    """tensors: name -> tensor, or (tensor of raw bytes, dtype name, shape)."""
    header, offset, blobs = {}, 0, []
    for name in sorted(tensors):
        value = tensors[name]
        data, kind, shape = value if isinstance(value, tuple) else (value, NAMES[value.dtype], list(value.shape))
        blob = data.detach().cpu().contiguous()
        blob = (blob.view(torch.int16) if blob.dtype == torch.bfloat16 else blob).numpy().tobytes()
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            out.write(blob)


def read_safetensors(path):
    """name -> tensor; E8M0 scales come back as their bytes (uint8)."""
    with open(path, "rb") as source:
        size = struct.unpack("<Q", source.read(8))[0]
        header, body = json.loads(source.read(size)), bytearray(source.read())
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        kind = torch.uint8 if entry["dtype"] == "F8_E8M0" else DTYPES[entry["dtype"]]
        raw = torch.frombuffer(body[begin:end], dtype=torch.int16 if kind == torch.bfloat16 else kind)
        out[name] = (raw.view(torch.bfloat16) if kind == torch.bfloat16 else raw).reshape(entry["shape"]).clone()
    return out


_CODES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def pack_fp4(w):
    """[rows, cols] f32 -> (bytes [rows, cols/2] with the even element low, E8M0 bytes [rows, cols/32])."""
    grid, exponent = quant_sim.mxfp4_parts(w.float())
    codes = torch.zeros_like(grid, dtype=torch.int32)
    for code, value in enumerate(_CODES):
        codes[grid.abs() == value] = code
    codes += (grid < 0).to(torch.int32) * 8
    pairs = codes.view(w.shape[0], -1, 2)
    return (pairs[..., 0] | (pairs[..., 1] << 4)).to(torch.uint8).view(torch.int8), (exponent + 127).clamp(0, 254).to(torch.uint8)


def unpack_fp4(packed, scale):
    """Inverse of pack_fp4, f32."""
    raw = packed.view(torch.uint8).to(torch.int64)
    codes = torch.stack([raw & 15, raw >> 4], -1).reshape(packed.shape[0], -1)
    table = torch.tensor(_CODES + [-v for v in _CODES])
    values = table[codes].view(packed.shape[0], -1, 32)
    return (values * torch.exp2(scale.to(torch.float64) - 127).float().unsqueeze(-1)).reshape(packed.shape[0], -1)


_KEEP_F32 = ("_fn", "_base", "_scale", "attn_sink", "ape", "bias")


def published_tensors(model, pack_experts=True):
    """Tensors of the published layout: FP4 experts with E8M0 scales, BF16 matrices and norms, F32 small ones."""
    out = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        parts = name.split(".")
        if "experts" in parts and parts[-1] in ("w1", "w2", "w3"):
            for e in range(value.shape[0]):
                stem = ".".join([*parts[:-1], str(e), parts[-1]])
                if pack_experts:
                    packed, scale = pack_fp4(value[e])
                    out[stem + ".weight"] = packed
                    out[stem + ".scale"] = (scale, "F8_E8M0", scale.shape)
                else:
                    out[stem + ".weight"] = value[e].to(torch.bfloat16)
        elif name.endswith("tid2eid"):
            out[name] = value.to(torch.int64)
        else:
            out[name] = value.float() if name.endswith(_KEEP_F32) else value.to(torch.bfloat16)
    return out


def load_published(model, tensors):
    """Fills `model` from published tensors (FP4 experts or plain ones)."""
    state = model.state_dict()
    filled = {}
    for name, value in state.items():
        parts = name.split(".")
        if "experts" in parts and parts[-1] in ("w1", "w2", "w3"):
            rows = []
            for e in range(value.shape[0]):
                stem = ".".join([*parts[:-1], str(e), parts[-1]])
                raw = tensors[stem + ".weight"]
                rows.append(unpack_fp4(raw, tensors[stem + ".scale"]) if raw.dtype == torch.int8 else raw.float())
            filled[name] = torch.stack(rows)
        else:
            filled[name] = tensors[name].to(value.dtype)
    model.load_state_dict(filled)
    return model


def save_published(folder, model, shard_bytes=15 << 20):
    """Writes config-free shards of at most `shard_bytes` with their index."""
    os.makedirs(folder, exist_ok=True)
    shards, size = [{}], 0
    for name, value in sorted(published_tensors(model).items()):
        data = value[0] if isinstance(value, tuple) else value
        bytes_needed = data.numel() * data.element_size()
        if size + bytes_needed > shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += bytes_needed
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(os.path.join(folder, file), shard)
        index.update({name: file for name in shard})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as out:
        json.dump({"metadata": {}, "weight_map": index}, out, indent=1, sort_keys=True)


def load_folder(folder):
    """All tensors of a checkpoint folder."""
    with open(os.path.join(folder, "model.safetensors.index.json"), encoding="utf-8") as source:
        files = sorted(set(json.load(source)["weight_map"].values()))
    out = {}
    for file in files:
        out.update(read_safetensors(os.path.join(folder, file)))
    return out
