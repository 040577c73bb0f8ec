#include "convert/tensor_plan.h"

#include <utility>

#include <fmt/format.h>

namespace ds4::convert {

namespace {

// Collects tensors below one pair of name prefixes.
class Planner {
 public:
  Planner(std::vector<PlannedTensor>& out, std::string prefix, std::string source_prefix, bool mtp)
      : out_(out),
        prefix_(std::move(prefix)),
        source_prefix_(std::move(source_prefix)),
        mtp_(mtp) {}

  void vector(std::string_view name, std::string_view source, std::uint64_t count) {
    add(name, source, TensorClass::kVector, {count});
  }
  // `rows` outputs of `columns` inputs.
  void matrix(TensorClass tensor_class,
              std::string_view name,
              std::string_view source,
              std::uint64_t rows,
              std::uint64_t columns) {
    add(name, source, tensor_class, {columns, rows});
  }
  PlannedTensor& add(std::string_view name,
                     std::string_view source,
                     TensorClass tensor_class,
                     std::vector<std::uint64_t> shape) {
    out_.push_back({.name = fmt::format("{}{}", prefix_, name),
                    .source = fmt::format("{}{}", source_prefix_, source),
                    .tensor_class = tensor_class,
                    .shape = std::move(shape),
                    .mtp = mtp_});
    return out_.back();
  }

 private:
  std::vector<PlannedTensor>& out_;
  std::string prefix_;
  std::string source_prefix_;
  bool mtp_;
};

// What one layer is, beyond the shape that all share.
struct LayerKindPlan {
  std::uint32_t ratio;
  bool hash_routed;
};

void plan_mixers(Planner& p, const ModelShape& s, std::string_view site) {
  const auto name = [&](std::string_view part) {
    return fmt::format("hc_{}_{}.weight", site, part);
  };
  const auto source = [&](std::string_view part) { return fmt::format("hc_{}_{}", site, part); };
  p.matrix(TensorClass::kDense, name("fn"), source("fn"), s.mix_count(), s.streams_width());
  p.vector(name("base"), source("base"), s.mix_count());
  p.vector(name("scale"), source("scale"), 3);
}

void plan_head_mixers(Planner& p, const ModelShape& s, std::string_view name) {
  p.matrix(TensorClass::kDense, fmt::format("{}_fn.weight", name), "hc_head_fn", s.stream_count,
           s.streams_width());
  p.vector(fmt::format("{}_base.weight", name), "hc_head_base", s.stream_count);
  p.vector(fmt::format("{}_scale.weight", name), "hc_head_scale", 1);
}

void plan_compressor(Planner& p,
                     const ModelShape& s,
                     std::string_view name,
                     std::string_view source,
                     std::uint32_t ratio,
                     std::uint32_t size) {
  constexpr auto kClass = TensorClass::kAttentionOther;
  // A window of ratio 4 overlaps the next one: both halves come from one projection.
  const std::uint64_t width = std::uint64_t{size} * (ratio == 4 ? 2 : 1);
  p.matrix(kClass, fmt::format("{}_ape.weight", name), fmt::format("{}.ape", source), ratio, width);
  p.matrix(kClass, fmt::format("{}_kv.weight", name), fmt::format("{}.wkv.weight", source), width,
           s.width);
  p.matrix(kClass, fmt::format("{}_gate.weight", name), fmt::format("{}.wgate.weight", source),
           width, s.width);
  p.vector(fmt::format("{}_norm.weight", name), fmt::format("{}.norm.weight", source), size);
}

void plan_attention(Planner& p, const ModelShape& s, std::uint32_t ratio) {
  constexpr auto kClass = TensorClass::kAttention;
  const std::uint64_t low = std::uint64_t{s.output_group_count} * s.output_rank;
  p.vector("attn_norm.weight", "attn_norm.weight", s.width);
  p.matrix(kClass, "attn_q_a.weight", "attn.wq_a.weight", s.query_rank, s.width);
  p.vector("attn_q_a_norm.weight", "attn.q_norm.weight", s.query_rank);
  p.matrix(kClass, "attn_q_b.weight", "attn.wq_b.weight", s.heads_width(), s.query_rank);
  p.matrix(kClass, "attn_kv.weight", "attn.wkv.weight", s.head_dim, s.width);
  p.vector("attn_kv_a_norm.weight", "attn.kv_norm.weight", s.head_dim);
  p.vector("attn_sinks.weight", "attn.attn_sink", s.head_count);
  p.matrix(kClass, "attn_output_a.weight", "attn.wo_a.weight", low,
           s.heads_width() / s.output_group_count);
  p.matrix(kClass, "attn_output_b.weight", "attn.wo_b.weight", s.width, low);
  if (ratio == 0) return;
  plan_compressor(p, s, "attn_compressor", "attn.compressor", ratio, s.head_dim);
  if (ratio != 4) return;
  constexpr auto kOther = TensorClass::kAttentionOther;
  p.matrix(kOther, "indexer.attn_q_b.weight", "attn.indexer.wq_b.weight",
           std::uint64_t{s.index_head_count} * s.index_dim, s.query_rank);
  p.matrix(kOther, "indexer.proj.weight", "attn.indexer.weights_proj.weight", s.index_head_count,
           s.width);
  plan_compressor(p, s, "indexer_compressor", "attn.indexer.compressor", ratio, s.index_dim);
}

void plan_experts(Planner& p, const ModelShape& s, bool hash_routed) {
  p.vector("ffn_norm.weight", "ffn_norm.weight", s.width);
  p.matrix(TensorClass::kDense, "ffn_gate_inp.weight", "ffn.gate.weight", s.expert_count, s.width);
  if (hash_routed) {
    p.add("ffn_gate_tid2eid.weight", "ffn.gate.tid2eid", TensorClass::kIndices,
          {s.experts_used, s.vocab_size});
  } else {
    p.add("exp_probs_b.bias", "ffn.gate.bias", TensorClass::kVector, {s.expert_count}).optional =
        true;
  }
  const auto stack = [&](TensorClass tensor_class, std::string_view name, std::string_view part,
                         std::uint64_t rows, std::uint64_t columns) {
    p.add(fmt::format("ffn_{}_exps.weight", name), fmt::format("ffn.experts.{{}}.{}.weight", part),
          tensor_class, {columns, rows, s.expert_count});
  };
  stack(TensorClass::kRoutedGate, "gate", "w1", s.expert_width, s.width);
  stack(TensorClass::kRoutedUp, "up", "w3", s.expert_width, s.width);
  stack(TensorClass::kRoutedDown, "down", "w2", s.width, s.expert_width);
  constexpr auto kShared = TensorClass::kShared;
  constexpr std::string_view kSource = "ffn.shared_experts.";
  p.matrix(kShared, "ffn_gate_shexp.weight", fmt::format("{}w1.weight", kSource), s.expert_width,
           s.width);
  p.matrix(kShared, "ffn_up_shexp.weight", fmt::format("{}w3.weight", kSource), s.expert_width,
           s.width);
  p.matrix(kShared, "ffn_down_shexp.weight", fmt::format("{}w2.weight", kSource), s.width,
           s.expert_width);
}

void plan_layer(Planner& p, const ModelShape& s, LayerKindPlan kind) {
  plan_mixers(p, s, "attn");
  plan_attention(p, s, kind.ratio);
  plan_mixers(p, s, "ffn");
  plan_experts(p, s, kind.hash_routed);
}

}  // namespace

std::string PlannedTensor::source_of(std::uint64_t expert) const {
  const std::size_t hole = source.find("{}");
  if (hole == std::string::npos) return source;
  return fmt::format("{}{}{}", source.substr(0, hole), expert, source.substr(hole + 2));
}

std::vector<PlannedTensor> plan_main(const ModelShape& s) {
  std::vector<PlannedTensor> tensors;
  Planner top(tensors, "", "", false);
  top.matrix(TensorClass::kEmbedding, "token_embd.weight", "embed.weight", s.vocab_size, s.width);
  for (std::uint32_t layer = 0; layer < s.layer_count; ++layer) {
    Planner planner(tensors, fmt::format("blk.{}.", layer), fmt::format("layers.{}.", layer),
                    false);
    plan_layer(planner, s,
               {.ratio = s.compress_ratios[layer], .hash_routed = layer < s.hash_layer_count});
  }
  plan_head_mixers(top, s, "output_hc");
  top.vector("output_norm.weight", "norm.weight", s.width);
  top.matrix(TensorClass::kOutput, "output.weight", "head.weight", s.vocab_size, s.width);
  return tensors;
}

std::vector<PlannedTensor> plan_mtp(const ModelShape& s) {
  std::vector<PlannedTensor> tensors;
  Planner planner(tensors, "mtp.0.", "mtp.0.", true);
  planner.matrix(TensorClass::kMtpProjection, "e_proj.weight", "e_proj.weight", s.width, s.width);
  planner.matrix(TensorClass::kMtpProjection, "h_proj.weight", "h_proj.weight", s.width, s.width);
  planner.vector("enorm.weight", "enorm.weight", s.width);
  planner.vector("hnorm.weight", "hnorm.weight", s.width);
  plan_layer(planner, s, {.ratio = 0, .hash_routed = false});
  plan_head_mixers(planner, s, "hc_head");
  planner.vector("norm.weight", "norm.weight", s.width);
  return tensors;
}

}  // namespace ds4::convert
