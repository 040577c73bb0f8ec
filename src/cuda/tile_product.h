#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/matrix.h"

namespace ds4::cuda {

// A tile of the rows that one expert has: rows [first, first + count) of the sorted pair list.
struct ExpertTile {
  std::uint32_t expert;
  std::uint32_t first;
  std::uint32_t count;
};

// The tiles of a step and the pairs that they are made of (grouped_experts.h); `rows` of each at
// most.
struct ExpertTiles {
  const ExpertTile* tiles = nullptr;
  const std::uint32_t* tile_count = nullptr;
  const std::uint32_t* pairs = nullptr;
  std::uint32_t tiles_max = 0;
  std::uint32_t rows = 0;
};

// Matrix times many vectors on the tensor cores: prefill.
//
//   out[out_row][o] = sum over c of w[slab][o][c] * x[x_row][c]
//
// Plain: rows are 0 .. rows - 1 and `groups` slices of w's rows each read their own columns of x.
// Grouped by expert: `experts` names slabs and ranges of pairs; pair p reads row p / x_divisor and
// writes row p.
//
// With `up`, w and up give an activated value: out = silu(min(w x, limit)) * clamp(up x, limit) *
// weight, the weight of pair p being weights[p / slots * (slots - 1) + p % slots], or 1.
//
// x and out_rounded hold the columns of a row in the order of operand_pair().
struct TileProduct {
  Matrix w;
  Matrix up = {};
  const std::uint16_t* x = nullptr;  // f16 [rows, x_stride]
  // What x lost to rounding, f16 in the same shape, or null: with it products are near f32's.
  const std::uint16_t* x_rest = nullptr;
  std::uint32_t x_stride = 0;
  // One of the two; [rows, out_stride].
  float* out = nullptr;
  std::uint16_t* out_rounded = nullptr;
  std::uint32_t out_stride = 0;
  std::uint32_t rows = 0;  // plain: rows of x
  std::uint32_t groups = 1;
  std::uint32_t group_columns = 0;  // offset of the next group's columns in x
  ExpertTiles experts = {};         // tiles null: plain
  std::uint32_t x_divisor = 1;
  float limit = 0;
  const float* weights = nullptr;  // [rows, slots - 1]
  std::uint32_t slots = 0;
  const std::byte* grid = nullptr;  // IQ2_XXS magnitudes on the device
  bool portable = false;            // without what only some cards have
};

// Where the tensor cores want pair `pair` of neighbouring columns: of every 16 pairs, the four that
// are a lane's stand four apart.
constexpr std::uint32_t operand_pair(std::uint32_t pair) {
  return pair / 16 * 16 + pair % 4 * 4 + pair % 16 / 4;
}

void run_tile_product(Stream& stream, const char* stage, const TileProduct& product);
// The same with `up`.
void run_gated_tile_product(Stream& stream, const char* stage, const TileProduct& product);

// x to f16 in the order of operand_pair(), and what that loses to `rest` unless null.   [rows,
// columns] of row stride `x_stride`
void round_activations(Stream& stream,
                       const float* x,
                       std::uint32_t x_stride,
                       std::uint32_t rows,
                       std::uint32_t columns,
                       std::uint16_t* rounded,
                       std::uint16_t* rest);

}  // namespace ds4::cuda
