#pragma once
#include "cuda/device.h"
#include "cuda/matrix.h"
#include "cuda/step.h"
#include "cuda/tile_product.h"

namespace ds4::cuda {

// Routing: from router logits to expert ids and weights.
struct RouteJob {
  Step step;
  std::uint32_t expert_count = 0;
  std::uint32_t used = 0;
  float weight_scale = 0;
  const float* logits = nullptr;             // [rows, expert_count]
  const float* bias = nullptr;               // [expert_count] or null
  const std::int32_t* hash_table = nullptr;  // [vocab, used] or null
  std::int32_t* ids = nullptr;               // [rows, used]
  float* weights = nullptr;                  // [rows, used]
};
void route_rows(Stream& stream, const RouteJob& job);

// The experts of few rows, straight from the quantised weights.  Slots of a row: the chosen
// experts, then the shared one.
struct ExpertsJob {
  std::uint32_t rows = 0;
  std::uint32_t used = 0;
  float limit = 0;
  Matrix gate, up, down;  // stacked
  Matrix shared_gate, shared_up, shared_down;
  const std::int32_t* ids = nullptr;  // [rows, used]
  const float* weights = nullptr;     // [rows, used]
  std::byte* x = nullptr;             // [rows] of width as integers (integer_rows.h)
  float* mid = nullptr;               // [rows, used + 1, expert_width]
  float* output = nullptr;            // [rows, width]
  const std::byte* grid = nullptr;
  // Blocks of gate and up for a routed slot and for the shared slot of some rows; set by
  // run_experts_of_few().
  std::uint32_t routed_blocks = 0;
  std::uint32_t shared_blocks = 0;
};
void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& job);

// Sorts the (row, slot) pairs of many rows by expert and cuts them into tiles.  Pair numbers are
// row * (used + 1) + slot.
struct GroupJob {
  std::uint32_t rows = 0;
  std::uint32_t used = 0;
  std::uint32_t expert_count = 0;
  const std::int32_t* ids = nullptr;
  std::uint32_t* pairs = nullptr;       // [rows * used]
  ExpertTile* tiles = nullptr;          // [expert_tiles_max()]
  std::uint32_t* tile_count = nullptr;  // [1]
};
constexpr std::uint32_t expert_tiles_max(std::uint32_t rows,
                                         std::uint32_t used,
                                         std::uint32_t expert_count) {
  const std::uint32_t full = rows * used / kExpertTileRows;
  const std::uint32_t pairs = rows * used;
  return full + (expert_count < pairs ? expert_count : pairs);
}
void group_by_expert(Stream& stream, const GroupJob& job);

// mid[pair] = silu(min(gate, limit)) * clamp(up, limit) * weight, as f16, for all slots.
void activate_experts(Stream& stream,
                      std::uint32_t rows,
                      std::uint32_t used,
                      std::uint32_t expert_width,
                      float limit,
                      const float* gate,
                      const float* up,
                      const float* weights,
                      std::uint16_t* mid);

// output[r] = sum over slots of expert_out[r][slot]
void combine_experts(Stream& stream,
                     std::uint32_t rows,
                     std::uint32_t slots,
                     std::uint32_t width,
                     const float* expert_out,
                     float* output);

}  // namespace ds4::cuda
