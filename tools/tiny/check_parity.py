"""Compares this architecture with transformers' DeepseekV4ForCausalLM on random weights (f32, no cache round trips).

    python3 tools/tiny/check_parity.py        # exits 1 when a logit differs by more than 1e-4
"""
import sys

import torch

import model as architecture

LIMIT = 1e-4


def hf_name(name):
    """Published tensor name -> transformers' name (experts apart)."""
    if name in ("embed.weight", "head.weight", "norm.weight"):
        return {"embed": "model.embed_tokens.weight", "head": "lm_head.weight", "norm": "model.norm.weight"}[name.split(".")[0]]
    if name.startswith("hc_head_"):
        return f"model.hc_head.hc_{name[8:]}"
    renames = [("attn.attn_sink", "self_attn.sinks"), ("attn.indexer.compressor.", "self_attn.compressor.indexer."),
               ("attn.indexer.wq_b", "self_attn.compressor.indexer.q_b_proj"),
               ("attn.indexer.weights_proj", "self_attn.compressor.indexer.scorer.weights_proj"),
               ("attn.compressor.", "self_attn.compressor."), ("attn.wq_a", "self_attn.q_a_proj"), ("attn.wq_b", "self_attn.q_b_proj"),
               ("attn.q_norm", "self_attn.q_a_norm"), ("attn.wkv", "self_attn.kv_proj"), ("attn.kv_norm", "self_attn.kv_norm"),
               ("attn.wo_a", "self_attn.o_a_proj"), ("attn.wo_b", "self_attn.o_b_proj"), ("attn_norm", "input_layernorm"),
               ("ffn_norm", "post_attention_layernorm"), ("hc_attn_", "attn_hc."), ("hc_ffn_", "ffn_hc."),
               ("ffn.gate.bias", "mlp.gate.e_score_correction_bias"), ("ffn.gate.", "mlp.gate."),
               ("ffn.shared_experts.w1", "mlp.shared_experts.gate_proj"), ("ffn.shared_experts.w3", "mlp.shared_experts.up_proj"),
               ("ffn.shared_experts.w2", "mlp.shared_experts.down_proj")]
    head, rest = name.split(".", 2)[:2], name.split(".", 2)[2]
    for ours, theirs in renames:
        if rest.startswith(ours):
            rest = theirs + rest[len(ours):]
            break
    if "compressor" in rest:
        rest = rest.replace(".ape", ".position_bias").replace(".wkv.", ".kv_proj.").replace(".wgate.", ".gate_proj.").replace(".norm.", ".kv_norm.")
    return f"model.{head[0]}.{head[1]}.{rest}"


def hf_state(model):
    out = {}
    for name, value in model.state_dict().items():
        if name.startswith("mtp.") or ".experts." in name:
            continue
        out[hf_name(name)] = value
    for index, layer in enumerate(model.layers):
        e = layer.ffn.experts
        out[f"model.layers.{index}.mlp.experts.gate_up_proj"] = torch.cat([e.w1, e.w3], 1).detach()
        out[f"model.layers.{index}.mlp.experts.down_proj"] = e.w2.detach()
    return out


def build_hf(cfg):
    from transformers import DeepseekV4Config, DeepseekV4ForCausalLM
    c = DeepseekV4Config(
        vocab_size=cfg.vocab_size, hidden_size=cfg.hidden, moe_intermediate_size=cfg.expert_width, num_hidden_layers=len(cfg.ratios),
        num_attention_heads=cfg.heads, num_key_value_heads=1, head_dim=cfg.head_dim, qk_rope_head_dim=cfg.rope_dim,
        q_lora_rank=cfg.q_lora, o_groups=cfg.o_groups, o_lora_rank=cfg.o_lora, n_routed_experts=cfg.experts,
        num_experts_per_tok=cfg.active_experts, n_shared_experts=1, index_n_heads=cfg.index_heads, index_head_dim=cfg.index_dim,
        index_topk=cfg.index_topk, sliding_window=128, compress_ratios=cfg.ratios, num_hash_layers=cfg.hash_layers,
        swiglu_limit=cfg.swiglu_limit, routed_scaling_factor=cfg.route_scale, max_position_embeddings=1048576, rope_theta=10000,
        compress_rope_theta=160000, rope_scaling={"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                                                  "original_max_position_embeddings": 65536})
    m = DeepseekV4ForCausalLM(c).eval().float()
    m.set_attn_implementation("eager")
    m.set_experts_implementation("eager")
    return m


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    cfg = architecture.Config(vocab_size=512, hidden=128, expert_width=64, index_heads=32, index_topk=24, ratios=[0, 0, 4, 128, 4, 4],
                              q_lora=64, o_lora=32)
    ours = architecture.initialise(architecture.TinyModel(cfg), 7).eval()
    with torch.no_grad():
        for layer in ours.layers:
            layer.attn.attn_sink.normal_()
            if not layer.ffn.hashed:
                layer.ffn.gate.bias.normal_(std=0.1)
    theirs = build_hf(cfg)
    missing, unexpected = theirs.load_state_dict(hf_state(ours), strict=False)
    missing = [m for m in missing if "inv_freq" not in m]
    print("missing", missing, "unexpected", unexpected)
    torch.manual_seed(3)
    ids = torch.randint(0, cfg.vocab_size, (2, 600))
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).logits
    got = ours.run(ids, architecture.Mode())
    worst = (expected - got).abs().max().item()
    print(f"largest logit difference {worst:.2e} over {ids.shape[1]} tokens, logit spread {expected.std().item():.2f}, "
          f"equal argmax {(expected.argmax(-1) == got.argmax(-1)).float().mean().item():.4f}")
    sys.exit(0 if worst < LIMIT and not missing and not unexpected else 1)


if __name__ == "__main__":
    main()
