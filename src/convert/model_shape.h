#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/writer.h"

namespace ds4::convert {

// Everything that config.json says about a model of this family and GGUF metadata must carry.
// Plain data.
struct ModelShape {
  std::string name;
  std::uint32_t layer_count = 0;      // main layers
  std::uint32_t mtp_layer_count = 0;  // after them
  std::uint32_t width = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t head_count = 0;
  std::uint32_t head_dim = 0;
  std::uint32_t rope_dim = 0;
  std::uint32_t query_rank = 0;
  std::uint32_t output_group_count = 0;
  std::uint32_t output_rank = 0;
  std::uint32_t window = 0;
  std::uint32_t index_head_count = 0;
  std::uint32_t index_dim = 0;
  std::uint32_t index_top_k = 0;
  std::uint32_t expert_count = 0;
  std::uint32_t experts_used = 0;
  std::uint32_t shared_expert_count = 1;
  std::uint32_t expert_width = 0;
  std::uint32_t hash_layer_count = 0;
  std::uint32_t stream_count = 4;
  std::uint32_t sinkhorn_iterations = 20;
  std::uint64_t context_max = 1048576;
  std::uint64_t rope_original_context = 65536;
  float rms_epsilon = 1e-6F;
  float hc_epsilon = 1e-6F;
  float expert_weight_scale = 1.5F;
  float swiglu_limit = 10.0F;
  float rope_base = 10000.0F;
  float compressed_rope_base = 160000.0F;
  float rope_factor = 16.0F;
  float yarn_beta_fast = 32.0F;
  float yarn_beta_slow = 1.0F;
  bool normalize_expert_weights = true;
  std::vector<std::uint32_t> compress_ratios;  // [layer_count + mtp_layer_count]

  // Values of all streams of one token.
  std::uint64_t streams_width() const { return std::uint64_t{stream_count} * width; }
  std::uint64_t heads_width() const { return std::uint64_t{head_count} * head_dim; }
  // Outputs of a stream mixer: stream_count gates in, as many out, and the square between them.
  std::uint64_t mix_count() const { return std::uint64_t{stream_count} * (2 + stream_count); }
};

// Reads a checkpoint's config.json.  Throws Error(kBadFormat | kUnsupported) naming the key when
// one is missing, out of range, or describes another graph.
ModelShape read_hf_config(const std::filesystem::path& path);

// The published shapes, and a small one with every kind of layer for trials.
ModelShape flash_shape();
ModelShape pro_shape();
ModelShape tiny_shape();

// Keeps the first `layer_count` main layers and the MTP layers.  Throws Error(kInvalidArgument) for
// 0 or more than there are.
ModelShape with_layers(ModelShape shape, std::uint32_t layer_count);

// Writes the architecture and all its hyper-parameters.  `mtp_in_file` says whether this file holds
// the MTP block.
void write_shape_metadata(gguf::Writer& writer, const ModelShape& shape, bool mtp_in_file);

}  // namespace ds4::convert
