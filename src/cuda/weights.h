#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "cuda/device.h"
#include "cuda/matrix.h"
#include "model/weights.h"

namespace ds4::cuda {

// The model's weights on the card: every tensor of ds4::Weights, repacked as Matrix describes.

struct DeviceHc {
  Matrix fn;
  const float* base = nullptr;
  const float* scale = nullptr;
};

struct DeviceCompressor {
  Matrix ape;  // f32
  Matrix kv, gate;
  const float* norm = nullptr;
};

struct DeviceLayer {
  DeviceHc attention_hc, ffn_hc;
  const float* attention_norm = nullptr;
  const float* ffn_norm = nullptr;
  Matrix query_a, query_b, key_value, output_a, output_b;
  const float* query_a_norm = nullptr;
  const float* key_value_norm = nullptr;
  const float* sinks = nullptr;
  std::optional<DeviceCompressor> compressor;
  Matrix index_query, index_proj;  // ratio 4
  std::optional<DeviceCompressor> index_compressor;
  Matrix router;
  const float* router_bias = nullptr;        // null: none
  const std::int32_t* hash_table = nullptr;  // null: routed by score
  Matrix expert_gate, expert_up, expert_down;
  Matrix shared_gate, shared_up, shared_down;
};

struct DeviceHead {
  DeviceHc hc;
  const float* norm = nullptr;
};

struct DeviceMtp {
  Matrix token_projection, stream_projection;
  const float* token_norm = nullptr;
  const float* stream_norm = nullptr;
  DeviceHead head;
};

class DeviceWeights {
 public:
  // Called now and then with the bytes done so far and in all.
  using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

  // Copies everything, through page-locked buffers that `thread_count` threads fill while the copy
  // before is under way.  Throws Error(kOutOfMemory) before copying when it does not fit.
  DeviceWeights(Stream& stream,
                const Weights& weights,
                std::uint32_t thread_count,
                const Progress& progress);

  // What the constructor allocates for good.
  static std::uint64_t planned_bytes(const Weights& weights);

  Matrix embedding, output;
  DeviceHead head;
  std::vector<DeviceLayer> layers;  // main layers of the slice
  std::optional<DeviceMtp> mtp;
  std::optional<DeviceLayer> mtp_layer;
  const std::byte* grid = nullptr;  // IQ2_XXS magnitudes, [256][8] bytes
  std::uint64_t bytes() const { return arena_.bytes(); }

 private:
  class Uploader;
  static DeviceLayer upload_layer(Uploader& uploader, const LayerWeights& w);

  DeviceBuffer arena_;
};

// Blocks of whole rows from the file's layout in `staged` to the planes of `to`, starting at row
// `first_row` of all slabs.
void repack_rows(Stream& stream,
                 const std::byte* staged,
                 const Matrix& to,
                 std::uint64_t first_row,
                 std::uint64_t row_count);

}  // namespace ds4::cuda
