#include "convert/model_shape.h"

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::convert {

namespace {

constexpr std::uint32_t kIndexedRatio = 4;
constexpr std::uint32_t kPooledRatio = 128;

// `first`, `first`, then indexed and pooled layers in turn, then 0 for each MTP layer.
std::vector<std::uint32_t> alternating_ratios(std::uint32_t layer_count,
                                              std::uint32_t mtp_layer_count,
                                              std::uint32_t first) {
  std::vector<std::uint32_t> ratios(layer_count + mtp_layer_count, 0);
  for (std::uint32_t layer = 0; layer < layer_count; ++layer)
    ratios[layer] = layer < 2 ? first : (layer % 2 == 0 ? kIndexedRatio : kPooledRatio);
  return ratios;
}

// What Flash, Pro and the trial shape have in common.
ModelShape family_shape(std::string_view name) {
  ModelShape shape;
  shape.name = name;
  shape.mtp_layer_count = 1;
  shape.vocab_size = 129280;
  shape.head_dim = 512;
  shape.rope_dim = 64;
  shape.window = 128;
  shape.index_head_count = 64;
  shape.index_dim = 128;
  shape.experts_used = 6;
  shape.hash_layer_count = 3;
  return shape;
}

}  // namespace

ModelShape flash_shape() {
  ModelShape shape = family_shape("DeepSeek-V4-Flash shape, random weights");
  shape.layer_count = 43;
  shape.width = 4096;
  shape.head_count = 64;
  shape.query_rank = 1024;
  shape.output_group_count = 8;
  shape.output_rank = 1024;
  shape.index_top_k = 512;
  shape.expert_count = 256;
  shape.expert_width = 2048;
  shape.compress_ratios = alternating_ratios(shape.layer_count, shape.mtp_layer_count, 0);
  return shape;
}

ModelShape pro_shape() {
  ModelShape shape = family_shape("DeepSeek-V4-Pro shape, random weights");
  shape.layer_count = 61;
  shape.width = 7168;
  shape.head_count = 128;
  shape.query_rank = 1536;
  shape.output_group_count = 16;
  shape.output_rank = 1024;
  shape.index_top_k = 1024;
  shape.expert_count = 384;
  shape.expert_width = 3072;
  shape.expert_weight_scale = 2.5F;
  shape.compress_ratios =
      alternating_ratios(shape.layer_count, shape.mtp_layer_count, kPooledRatio);
  return shape;
}

ModelShape tiny_shape() {
  ModelShape shape = family_shape("tiny trial shape, random weights");
  shape.layer_count = 6;
  shape.width = 256;
  shape.vocab_size = 384;
  shape.head_count = 2;
  shape.query_rank = 128;
  shape.output_group_count = 2;
  shape.output_rank = 64;
  shape.index_head_count = 4;
  shape.index_top_k = 32;
  shape.expert_count = 8;
  shape.experts_used = 2;
  shape.expert_width = 256;
  shape.context_max = 65536;
  shape.compress_ratios = alternating_ratios(shape.layer_count, shape.mtp_layer_count, 0);
  return shape;
}

ModelShape with_layers(ModelShape shape, std::uint32_t layer_count) {
  if (layer_count == 0 || layer_count > shape.layer_count) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the shape has {} layers; 1 to {} can be kept, not {}",
                            shape.layer_count, shape.layer_count, layer_count));
  }
  auto& ratios = shape.compress_ratios;
  ratios.erase(ratios.begin() + layer_count, ratios.begin() + shape.layer_count);
  shape.layer_count = layer_count;
  return shape;
}

void write_shape_metadata(gguf::Writer& writer, const ModelShape& s, bool mtp_in_file) {
  const auto key = [](std::string_view leaf) { return fmt::format("deepseek4.{}", leaf); };
  const auto u32 = [&](std::string_view leaf, std::uint32_t value) {
    writer.set_u32(key(leaf), value);
  };
  const auto f32 = [&](std::string_view leaf, float value) { writer.set_f32(key(leaf), value); };
  writer.set_string("general.architecture", "deepseek4");
  writer.set_string("general.name", s.name);
  writer.set_u32("general.quantization_version", 2);
  writer.set_u64(key("context_length"), s.context_max);
  u32("block_count", s.layer_count);
  u32("nextn_predict_layers", mtp_in_file ? s.mtp_layer_count : 0);
  u32("embedding_length", s.width);
  u32("vocab_size", s.vocab_size);
  u32("attention.head_count", s.head_count);
  u32("attention.head_count_kv", 1);
  u32("attention.key_length", s.head_dim);
  u32("attention.value_length", s.head_dim);
  u32("attention.q_lora_rank", s.query_rank);
  u32("attention.output_lora_rank", s.output_rank);
  u32("attention.output_group_count", s.output_group_count);
  u32("attention.sliding_window", s.window);
  u32("attention.indexer.head_count", s.index_head_count);
  u32("attention.indexer.key_length", s.index_dim);
  u32("attention.indexer.top_k", s.index_top_k);
  f32("attention.layer_norm_rms_epsilon", s.rms_epsilon);
  f32("attention.compress_rope_freq_base", s.compressed_rope_base);
  writer.set_u32_array(key("attention.compress_ratios"), s.compress_ratios);
  u32("rope.dimension_count", s.rope_dim);
  f32("rope.freq_base", s.rope_base);
  writer.set_string(key("rope.scaling.type"), "yarn");
  f32("rope.scaling.factor", s.rope_factor);
  writer.set_u64(key("rope.scaling.original_context_length"), s.rope_original_context);
  f32("rope.scaling.yarn_beta_fast", s.yarn_beta_fast);
  f32("rope.scaling.yarn_beta_slow", s.yarn_beta_slow);
  u32("expert_count", s.expert_count);
  u32("expert_used_count", s.experts_used);
  u32("expert_shared_count", s.shared_expert_count);
  u32("expert_feed_forward_length", s.expert_width);
  u32("expert_group_count", 0);
  u32("expert_group_used_count", 0);
  f32("expert_weights_scale", s.expert_weight_scale);
  writer.set_bool(key("expert_weights_norm"), s.normalize_expert_weights);
  u32("hash_layer_count", s.hash_layer_count);
  u32("hyper_connection.count", s.stream_count);
  u32("hyper_connection.sinkhorn_iterations", s.sinkhorn_iterations);
  f32("hyper_connection.epsilon", s.hc_epsilon);
  writer.set_f32_array(key("swiglu_clamp_exp"),
                       std::vector<float>(s.compress_ratios.size(), s.swiglu_limit));
}

}  // namespace ds4::convert
