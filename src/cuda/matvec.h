#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/integer_rows.h"
#include "cuda/matrix.h"

namespace ds4::cuda {

// Matrix times a few vectors, bound by the read of the weights: decode.
//
//   out[r][o] = sum over c of w[o][c] * x[r][c + o / rows_per_group * group_columns]
//
// With `norm_weight`, x is first RMS-normalised over the matrix's columns and multiplied by it.
struct MatvecJob {
  Matrix w;
  const float* x = nullptr;       // [rows, x_stride]
  std::byte* integers = nullptr;  // the same [rows, groups] as integers (integer_rows.h), or null
  float* out = nullptr;           // [rows, out_stride]
  const float* norm_weight = nullptr;  // [columns] or null
  std::uint32_t x_stride = 0;
  std::uint32_t out_stride = 0;
  std::uint32_t rows_per_group = 0;  // 0: one group
  std::uint32_t group_columns = 0;
  // Set by run_matvec():
  std::uint32_t first_block = 0;
  std::uint32_t passes_per_block = 1;
};

inline constexpr std::uint32_t kMatvecJobsMax = 8;
// Rows up to which run_matvec() is the way of what rows_product.h does not take; more go to tile
// products, but for matrices of so few outputs that these would leave most of the card idle.
inline constexpr std::uint32_t kMatvecRowsMax = 8;
inline constexpr std::uint32_t kNarrowRowsMax = kIntegerRowsMax;
inline constexpr std::uint32_t kNarrowOutputsMax = 1024;

struct MatvecJobs {
  MatvecJob job[kMatvecJobsMax];
  std::uint32_t count = 0;
  std::uint32_t rows = 0;
  float epsilon = 0;
  const std::byte* grid = nullptr;  // IQ2_XXS magnitudes on the device

  MatvecJob& add(const Matrix& w,
                 const float* x,
                 std::uint32_t x_stride,
                 float* out,
                 std::uint32_t out_stride) {
    MatvecJob& next = job[count++];
    next = MatvecJob{};
    next.w = w;
    next.x = x;
    next.out = out;
    next.x_stride = x_stride;
    next.out_stride = out_stride;
    return next;
  }
};

// Runs all jobs over `rows` rows, as one launch where their quantised matrices have one type.  An
// output is one sum in an order that depends on the matrix alone, not on the other rows.
void run_matvec(Stream& stream,
                const DeviceInfo& device,
                const char* stage,
                const MatvecJobs& jobs);

}  // namespace ds4::cuda
