#pragma once
#include <cstddef>
#include <cstdint>

#include "tensor/element_type.h"

namespace ds4::cuda {

// A weight matrix on the card: the file's numbers, taken apart into two planes so that the codes of
// a row are contiguous and aligned for 16-byte loads.  The byte count is the file's.
//
//   type      codes plane, bytes a block       scales plane, bytes a block
//   F32, F16, BF16   as in the file            -
//   Q8_0      32 signed bytes                  2: d
//   IQ2_XXS   64: 8 groups                     2: d
//   MXFP4     16: nibbles                      1: exponent
//   Q4_K      128: nibbles                     16: d, dmin, 12 scale bytes
//   Q2_K      64: 2-bit codes                  16 scale bytes a block, then 4 (d, dmin) a block
//
// Trivially copyable: kernels take it by value.
struct Matrix {
  ElementType type = ElementType::kF32;
  std::uint32_t slabs = 0;            // experts; 1 otherwise
  std::uint32_t rows = 0;             // outputs
  std::uint32_t columns = 0;          // inputs
  std::uint32_t codes_bytes = 0;      // of one row
  std::uint32_t scales_bytes = 0;     // of one row
  const std::byte* codes = nullptr;   // [slabs, rows, codes_bytes]
  const std::byte* scales = nullptr;  // [slabs, rows, scales_bytes]
};

// Where a format's block goes.
struct PlaneSizes {
  std::uint32_t codes = 0;   // bytes of a block in the codes plane
  std::uint32_t scales = 0;  // bytes of a block in the scales plane
};
constexpr PlaneSizes plane_sizes(ElementType type) {
  switch (type) {
    case ElementType::kF32:
    case ElementType::kI32:
      return {4, 0};
    case ElementType::kF16:
    case ElementType::kBF16:
      return {2, 0};
    case ElementType::kQ8_0:
      return {32, 2};
    case ElementType::kIQ2XXS:
      return {64, 2};
    case ElementType::kMXFP4:
      return {16, 1};
    case ElementType::kQ4K:
      return {128, 16};
    case ElementType::kQ2K:
      return {64, 20};
  }
  return {};
}

}  // namespace ds4::cuda
