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

// Matrix times many vectors on the tensor cores: prefill.
//
//   out[out_row][o] = sum over c of w[slab][o][c] * x[x_row][c]
//
// Plain: rows are 0 .. rows - 1 and `groups` slices of w's rows each read their own columns of x.
// Grouped by expert: `tiles` names slabs and ranges of `pairs`; pair p reads row p / x_divisor and
// writes row p.
struct TileProduct {
  Matrix w;
  const std::uint16_t* x = nullptr;  // f16 [rows, x_stride]
  // What x lost to rounding, f16 in the same shape, or null: with it products are near f32's.
  const std::uint16_t* x_rest = nullptr;
  std::uint32_t x_stride = 0;
  float* out = nullptr;  // f32 [rows, out_stride]
  std::uint32_t out_stride = 0;
  std::uint32_t rows = 0;  // plain: rows of x
  std::uint32_t groups = 1;
  std::uint32_t group_columns = 0;  // offset of the next group's columns in x
  const ExpertTile* tiles = nullptr;
  const std::uint32_t* tile_count = nullptr;
  const std::uint32_t* pairs = nullptr;
  std::uint32_t tiles_max = 0;
  std::uint32_t x_divisor = 1;
  const std::byte* grid = nullptr;  // IQ2_XXS magnitudes on the device
};

// Rows of an expert tile, fixed so that tile lists can be made once for all products.
inline constexpr std::uint32_t kExpertTileRows = 64;

void run_tile_product(Stream& stream, const char* stage, const TileProduct& product);

// x to f16, and what that loses to `rest` unless null.   [rows, columns] of row stride `x_stride`
void round_activations(Stream& stream,
                       const float* x,
                       std::uint32_t x_stride,
                       std::uint32_t rows,
                       std::uint32_t columns,
                       std::uint16_t* rounded,
                       std::uint16_t* rest);

}  // namespace ds4::cuda
