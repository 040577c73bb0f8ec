#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/integer_rows.h"
#include "cuda/matrix.h"

namespace ds4::cuda {

// A quantised matrix times 2 to kIntegerRowsMax vectors that are integers already: steps of several
// sequences.
//
//   out[r][o] = sum over c of w[o][c] * x[r][o / rows_per_group][c]
//
// Each weight byte is read once.  A row's result is that of run_matvec() for it alone, to the bit.
struct RowsProduct {
  Matrix w;
  std::byte* x = nullptr;  // [rows, groups] of w.columns (integer_rows.h)
  std::uint32_t rows = 0;
  std::uint32_t rows_per_group = 0;  // 0: one group
  float* parts = nullptr;            // scratch of product_parts() floats
  float* out = nullptr;              // [rows, out_stride]
  std::uint32_t out_stride = 0;
  std::byte* out_integers = nullptr;  // the same as integers, [rows] of w.rows, or null
  const std::byte* grid = nullptr;    // IQ2_XXS magnitudes on the device
};
void run_rows_product(Stream& stream,
                      const DeviceInfo& device,
                      const char* stage,
                      const RowsProduct& product);

// Floats of scratch for a product of `rows` rows with a matrix of this shape.
std::size_t product_parts(std::uint32_t rows, std::uint32_t outputs, std::uint32_t columns);

// Whether run_rows_product() takes a matrix.
constexpr bool is_quantised(const Matrix& w) {
  return w.scales_bytes != 0;
}

// Rows become integers, RMS-normalised first and multiplied by `norm_weight` unless it is null.
void make_integers(Stream& stream,
                   std::uint32_t rows,
                   std::uint32_t columns,
                   const float* x,  // [rows, columns]
                   const float* norm_weight,
                   float epsilon,
                   std::byte* integers);

}  // namespace ds4::cuda
