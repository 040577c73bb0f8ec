#include "model/config.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "base/error.h"
#include "gguf/reader.h"

namespace ds4 {

namespace {

// Bounds that keep sizes derived from metadata far from overflow; each is well above any model of
// this family.
constexpr std::uint32_t kLayersMax = 1024;
constexpr std::uint32_t kDimensionMax = 1U << 20;
constexpr std::uint32_t kVocabMax = 1U << 22;

// Names that earlier converters gave to the same keys.  Those that llama.cpp has settled on are
// ours.
struct KeyAlias {
  std::string_view leaf;
  std::string_view other;
};
constexpr std::array<KeyAlias, 6> kKeyAliases = {{
    {"hyper_connection.count", "hyper_connection.mult"},
    {"hyper_connection.sinkhorn_iterations", "hyper_connection.sinkhorn_iters"},
    {"hyper_connection.epsilon", "hyper_connection.eps"},
    {"attention.output_lora_rank", "attention.o_lora_rank"},
    {"attention.compress_rope_freq_base", "rope.freq_base_compress"},
    {"attention.compress_ratios", "attention.layer_compress_ratio"},
}};

// Reads the keys of one file, accepting other dialects' names and logging each such step.
class MetadataReader {
 public:
  MetadataReader(const gguf::Reader& file, const LogSink& log) : file_(file), log_(log) {}

  // The key under which the file holds a value: ours unless it has another dialect's alone.
  std::string key(std::string_view leaf) const {
    std::string own = fmt::format("deepseek4.{}", leaf);
    if (file_.contains(own)) return own;
    for (const KeyAlias& alias : kKeyAliases) {
      if (alias.leaf != leaf) continue;
      std::string other = fmt::format("deepseek4.{}", alias.other);
      if (!file_.contains(other)) continue;
      ds4::log(log_, LogLevel::kInfo,
               fmt::format("{}: taking {} for {}", file_.name(), other, own));
      return other;
    }
    return own;
  }

  std::uint32_t u32(std::string_view leaf, std::uint32_t max = kDimensionMax) const {
    const std::uint32_t value = file_.get_u32(key(leaf));
    return in_range(leaf, value, max);
  }

  // A dimension that some converters write once a layer.  All layers must agree.
  std::uint32_t u32_of_layers(std::string_view leaf) const {
    const gguf::Value* value = file_.find(key(leaf));
    if (value == nullptr || value->type != gguf::ValueType::kArray) return u32(leaf);
    const auto values = file_.get_u32_array(key(leaf));
    if (values.empty() ||
        std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) != values.end()) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: {} differs between layers; expected one value", file_.name(),
                              key(leaf)));
    }
    return in_range(leaf, values.front(), kDimensionMax);
  }

  // A value a layer, which some converters write once for all of `count`.
  std::optional<std::vector<float>> f32_of_layers(std::string_view leaf, std::size_t count) const {
    const gguf::Value* value = file_.find(key(leaf));
    if (value == nullptr) return std::nullopt;
    if (value->type == gguf::ValueType::kArray) return file_.get_f32_array(key(leaf));
    return std::vector<float>(count, file_.get_f32(key(leaf)));
  }

  std::uint32_t u32_or(std::string_view leaf, std::uint32_t fallback, std::string_view why) const {
    if (const auto value = file_.find_u32(key(leaf))) return in_range(leaf, *value, kDimensionMax);
    ds4::log(log_, LogLevel::kInfo,
             fmt::format("{}: no {}; taking {} ({})", file_.name(), key(leaf), fallback, why));
    return fallback;
  }

  float f32_or(std::string_view leaf, float fallback) const {
    if (const auto value = file_.find_f32(key(leaf))) return *value;
    ds4::log(log_, LogLevel::kInfo,
             fmt::format("{}: no {}; taking {} (the family's value)", file_.name(), key(leaf),
                         fallback));
    return fallback;
  }

  std::uint32_t in_range(std::string_view leaf, std::uint32_t value, std::uint32_t max) const {
    if (value == 0 || value > max) {
      throw Error(ErrorCode::kBadFormat, fmt::format("{}: {} is {}; expected 1 to {}", file_.name(),
                                                     key(leaf), value, max));
    }
    return value;
  }

  const gguf::Reader& file() const { return file_; }
  const LogSink& log_sink() const { return log_; }

 private:
  const gguf::Reader& file_;
  const LogSink& log_;
};

void check_architecture(const gguf::Reader& file) {
  const std::string_view found = file.get_string("general.architecture");
  if (found == "deepseek4") return;
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format("{}: architecture is '{}'; this engine runs 'deepseek4' (DeepSeek V4) only",
                  file.name(), found));
}

// Files that do not say how large the vocabulary is hold one embedding a token.
std::uint32_t vocabulary(const MetadataReader& meta) {
  const gguf::TensorInfo* embedding = meta.file().find_tensor("token_embd.weight");
  if (meta.file().contains(meta.key("vocab_size")) || embedding == nullptr ||
      embedding->shape.size() != 2 || embedding->shape[1] > kVocabMax)
    return meta.u32("vocab_size", kVocabMax);
  ds4::log(meta.log_sink(), LogLevel::kInfo,
           fmt::format("{}: no {}; taking {} (the embeddings)", meta.file().name(),
                       meta.key("vocab_size"), embedding->shape[1]));
  return static_cast<std::uint32_t>(embedding->shape[1]);
}

void read_dimensions(const MetadataReader& meta, ModelConfig& c) {
  c.width = meta.u32("embedding_length");
  c.vocab_size = vocabulary(meta);
  c.head_count = meta.u32("attention.head_count");
  c.head_dim = meta.u32("attention.key_length");
  c.rope_dim = meta.u32("rope.dimension_count");
  c.query_rank = meta.u32("attention.q_lora_rank");
  c.output_rank = meta.u32("attention.output_lora_rank");
  c.output_group_count = meta.u32("attention.output_group_count");
  c.window = meta.u32("attention.sliding_window");
  c.index_head_count = meta.u32("attention.indexer.head_count");
  c.index_dim = meta.u32("attention.indexer.key_length");
  c.index_top_k = meta.u32("attention.indexer.top_k");
  c.expert_count = meta.u32("expert_count");
  c.experts_used = meta.u32("expert_used_count");
  c.expert_width = meta.u32_of_layers("expert_feed_forward_length");
  c.stream_count = meta.u32_or("hyper_connection.count", 4, "the family's value");
  c.sinkhorn_iterations =
      meta.u32_or("hyper_connection.sinkhorn_iterations", 20, "the family's value");
  c.hc_epsilon = meta.f32_or("hyper_connection.epsilon", 1e-6F);
  c.norm_epsilon = meta.f32_or("attention.layer_norm_rms_epsilon", 1e-6F);
  c.expert_weight_scale = meta.f32_or("expert_weights_scale", 1.5F);
  c.context_max = meta.file().find_u64(meta.key("context_length")).value_or(1U << 20);
}

void read_rope(const MetadataReader& meta, ModelConfig& c) {
  c.window_rope.base = meta.f32_or("rope.freq_base", 10000.0F);
  c.compressed_rope.base = meta.f32_or("attention.compress_rope_freq_base", 160000.0F);
  c.compressed_rope.factor = meta.f32_or("rope.scaling.factor", 16.0F);
  c.compressed_rope.original_context = static_cast<double>(
      meta.file().find_u64(meta.key("rope.scaling.original_context_length")).value_or(65536));
  c.compressed_rope.beta_fast = meta.f32_or("rope.scaling.yarn_beta_fast", 32.0F);
  c.compressed_rope.beta_slow = meta.f32_or("rope.scaling.yarn_beta_slow", 1.0F);
  if (!(c.window_rope.base > 1) || !(c.compressed_rope.base > 1) ||
      !(c.compressed_rope.factor >= 1) || !(c.compressed_rope.original_context >= 1)) {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("{}: rotary parameters are out of range: bases {} and {}, factor {}, "
                            "original context {}; bases must exceed 1, the others be at least 1",
                            meta.file().name(), c.window_rope.base, c.compressed_rope.base,
                            c.compressed_rope.factor, c.compressed_rope.original_context));
  }
}

// block_count counts the MTP blocks in one dialect (nextn_predict_layers > 0) and not in the other.
std::uint32_t main_layer_count(const MetadataReader& meta) {
  const std::uint32_t blocks = meta.u32("block_count", kLayersMax);
  const std::uint32_t extra = meta.file().find_u32(meta.key("nextn_predict_layers")).value_or(0);
  if (extra == 0 || extra >= blocks ||
      meta.file().find_tensor(fmt::format("blk.{}.nextn.eh_proj.weight", blocks - extra)) ==
          nullptr)
    return blocks;
  log(meta.log_sink(), LogLevel::kInfo,
      fmt::format("{}: block_count {} includes {} MTP block(s), whose fused projection this engine "
                  "does not run: no drafting with this file",
                  meta.file().name(), blocks, extra));
  return blocks - extra;
}

void read_layers(const MetadataReader& meta, ModelConfig& c) {
  c.layer_count = main_layer_count(meta);
  const auto ratios = meta.file().get_u32_array(meta.key("attention.compress_ratios"));
  const auto limits = meta.f32_of_layers("swiglu_clamp_exp", ratios.size());
  const std::uint32_t hashed = meta.file().find_u32(meta.key("hash_layer_count")).value_or(0);
  if (ratios.size() < c.layer_count || (limits && limits->size() < c.layer_count)) {
    throw Error(
        ErrorCode::kBadFormat,
        fmt::format("{}: compress_ratios and swiglu_clamp_exp need one value for each of the "
                    "{} layers; found {} and {}",
                    meta.file().name(), c.layer_count, ratios.size(), limits ? limits->size() : 0));
  }
  for (std::uint32_t l = 0; l < c.layer_count; ++l) {
    if (ratios[l] != 0 && ratios[l] != 4 && ratios[l] != 128) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: layer {} has compress ratio {}; expected 0, 4 or 128",
                              meta.file().name(), l, ratios[l]));
    }
    c.layers.push_back({.ratio = ratios[l],
                        .hash_routed = l < hashed,
                        .swiglu_limit = limits ? (*limits)[l] : 10.0F});
  }
  c.mtp_layer = {.ratio = 0, .hash_routed = false, .swiglu_limit = limits ? limits->back() : 10.0F};
}

void require(bool holds, const gguf::Reader& file, const std::string& what) {
  if (!holds) throw Error(ErrorCode::kUnsupported, fmt::format("{}: {}", file.name(), what));
}

bool is_power_of_two(std::uint32_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

void check_consistency(const gguf::Reader& file, const ModelConfig& c) {
  require(file.find_u32("deepseek4.attention.head_count_kv").value_or(1) == 1, file,
          "attention.head_count_kv must be 1: keys and values are one shared vector");
  require(file.find_u32("deepseek4.attention.value_length").value_or(c.head_dim) == c.head_dim,
          file, "attention.value_length must equal key_length");
  require(file.find_u32("deepseek4.expert_shared_count").value_or(1) == 1, file,
          "expert_shared_count must be 1");
  require(file.find_u32("deepseek4.expert_group_count").value_or(0) <= 1, file,
          "expert groups are not part of this graph");
  require(file.find_bool("deepseek4.expert_weights_norm").value_or(true), file,
          "expert_weights_norm must be true");
  require(c.rope_dim % 2 == 0 && c.rope_dim < c.head_dim && c.rope_dim <= c.index_dim, file,
          fmt::format("rope.dimension_count {} must be even, below the head's {} and at most the "
                      "index key's {}",
                      c.rope_dim, c.head_dim, c.index_dim));
  require(c.head_dim <= kHeadDimMax, file,
          fmt::format("attention.key_length is {}; expected at most {}", c.head_dim, kHeadDimMax));
  require(is_power_of_two(c.index_dim) && c.index_dim >= 32 && c.index_dim <= kIndexDimMax, file,
          fmt::format("attention.indexer.key_length is {}; expected a power of two from 32 to {}",
                      c.index_dim, kIndexDimMax));
  require(c.head_count % c.output_group_count == 0, file,
          fmt::format("{} heads do not divide into {} output groups", c.head_count,
                      c.output_group_count));
  require(
      c.experts_used <= c.expert_count, file,
      fmt::format("expert_used_count {} exceeds expert_count {}", c.experts_used, c.expert_count));
  require(c.stream_count <= kStreamsMax, file,
          fmt::format("hyper_connection.count is {}; expected at most {}", c.stream_count,
                      kStreamsMax));
}

}  // namespace

ModelConfig read_config(const gguf::Reader& file, const LogSink& log) {
  check_architecture(file);
  const MetadataReader meta(file, log);
  ModelConfig config;
  config.name = file.find_string("general.name").value_or("unnamed");
  read_dimensions(meta, config);
  read_rope(meta, config);
  read_layers(meta, config);
  check_consistency(file, config);
  return config;
}

}  // namespace ds4
