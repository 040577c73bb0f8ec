#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/log.h"
#include "tensor/strong.h"

namespace ds4::gguf {
class Reader;
}  // namespace ds4::gguf

namespace ds4 {

// Largest dimensions accepted, so that per-head buffers can have fixed sizes.
inline constexpr std::size_t kHeadDimMax = 1024;
inline constexpr std::size_t kIndexDimMax = 1024;
inline constexpr std::size_t kStreamsMax = 8;

// Rotary frequencies of one family of layers (docs/model.md, rope).
struct RopeConfig {
  double base = 10000.0;
  // YaRN interpolation; factor 1 means plain rotary frequencies.  There is no amplitude scale.
  double factor = 1.0;
  double original_context = 0.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
};

// How a layer sees the past beyond its window.
enum class LayerKind {
  kWindow,     // ratio 0: the last `window` positions alone
  kIndexed,    // ratio 4: plus the rows that the indexer selects
  kCompressed  // ratio 128: plus every compressed row
};

// What differs between layers; everything else is uniform.
struct LayerPlan {
  std::uint32_t ratio = 0;   // tokens per compressed row: 0, 4 or 128
  bool hash_routed = false;  // experts from the token id instead of from the scores
  float swiglu_limit = 0;
  LayerKind kind() const {
    return ratio == 0   ? LayerKind::kWindow
           : ratio == 4 ? LayerKind::kIndexed
                        : LayerKind::kCompressed;
  }
};

// The dimensions of one model, read from its file.  Immutable after load.  Nothing here is a
// compile-time constant but what the graph itself fixes: the ratios 4 and 128, and 1 key/value
// head.
struct ModelConfig {
  std::string name;               // general.name, for people
  std::uint32_t layer_count = 0;  // main layers, without the MTP block
  std::uint32_t width = 0;        // of one stream
  std::uint32_t vocab_size = 0;
  std::uint32_t stream_count = 0;  // hyper-connection streams
  std::uint32_t sinkhorn_iterations = 0;
  float hc_epsilon = 0;
  float norm_epsilon = 0;

  std::uint32_t head_count = 0;
  std::uint32_t head_dim = 0;  // rotary values are the last rope_dim of a head
  std::uint32_t rope_dim = 0;
  std::uint32_t query_rank = 0;
  std::uint32_t output_group_count = 0;
  std::uint32_t output_rank = 0;  // per group
  std::uint32_t window = 0;       // positions visible, the current one included

  std::uint32_t index_head_count = 0;
  std::uint32_t index_dim = 0;
  std::uint32_t index_top_k = 0;

  std::uint32_t expert_count = 0;
  std::uint32_t experts_used = 0;
  std::uint32_t expert_width = 0;  // routed and shared
  float expert_weight_scale = 0;

  RopeConfig window_rope;      // ratio-0 layers and the MTP block
  RopeConfig compressed_rope;  // ratio-4 and ratio-128 layers, for everything in the layer

  std::uint64_t context_max = 0;  // positions the model was made for
  std::vector<LayerPlan> layers;  // [layer_count]
  LayerPlan mtp_layer;            // ratio 0, not hash-routed

  // The block of the MTP layer is addressed as one more layer after the main ones.
  LayerIndex mtp_index() const { return LayerIndex{layer_count}; }
  const LayerPlan& layer(LayerIndex index) const {
    return index.value() == layer_count ? mtp_layer : layers[index.value()];
  }
  std::size_t nope_dim() const { return head_dim - rope_dim; }
  std::size_t streams_width() const { return std::size_t{stream_count} * width; }
  std::size_t heads_width() const { return std::size_t{head_count} * head_dim; }
};

// Reads and validates the metadata of `file`.  Missing values that have one possible meaning are
// derived, values under another dialect's key are taken, and each such step is logged.  Throws
// Error(kUnsupported | kBadFormat) naming the key, what was found and what was expected.
ModelConfig read_config(const gguf::Reader& file, const LogSink& log);

}  // namespace ds4
