#pragma once
#include <algorithm>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/tile_product.h"

namespace ds4::cuda {

// What the experts of many rows need besides their products (tile_product.h).  Slots of a row are
// its chosen experts, then the shared one; pair numbers are row * (used + 1) + slot.

// Sorts the pairs of many rows by expert and cuts them into tiles.
struct GroupJob {
  std::uint32_t rows = 0;
  std::uint32_t used = 0;
  std::uint32_t expert_count = 0;
  const std::int32_t* ids = nullptr;    // [rows, used]
  std::uint32_t* pairs = nullptr;       // [rows * used]
  ExpertTile* tiles = nullptr;          // [expert_tiles_max()]
  std::uint32_t* tile_count = nullptr;  // [1]
};

// Rows of an expert tile when experts have pairs / expert_count rows on average: tall enough that
// most experts need one.
constexpr std::uint32_t expert_tile_rows(std::uint32_t pairs, std::uint32_t expert_count) {
  const std::uint32_t mean = pairs / expert_count;
  return mean <= 10 ? 16 : mean <= 52 ? 64 : 128;
}
// Tiles that steps of up to `rows` rows can have.
constexpr std::uint32_t expert_tiles_max(std::uint32_t rows,
                                         std::uint32_t used,
                                         std::uint32_t expert_count) {
  const std::uint32_t pairs = rows * used;
  return std::max(pairs / expert_tile_rows(pairs, expert_count), expert_count) +
         std::min(expert_count, pairs);
}
ExpertTiles group_by_expert(Stream& stream, const GroupJob& job);

// output[r] = sum over slots of expert_out[r][slot]
void combine_experts(Stream& stream,
                     std::uint32_t rows,
                     std::uint32_t slots,
                     std::uint32_t width,
                     const float* expert_out,
                     float* output);

}  // namespace ds4::cuda
