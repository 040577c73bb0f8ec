#pragma once
#include <cstddef>
#include <cstdint>

namespace ds4::cuda {

// Rows up to which kernels hand each other their results as integers.
inline constexpr std::uint32_t kIntegerRowsMax = 32;

// Bytes of `rows` vectors as two planes of signed bytes each and one scale for 256 columns: the
// operand of integer products (integer_dot.cuh), in shared memory or, row by row, between kernels.
constexpr std::size_t integer_rows_bytes(std::uint32_t rows, std::uint32_t columns) {
  const std::uint32_t blocks = (columns + 255) / 256;
  const std::size_t scales = (std::size_t{rows} * blocks * sizeof(float) + 15) / 16 * 16;
  return std::size_t{rows} * 2 * (blocks * 256 + 32) + scales;
}

}  // namespace ds4::cuda
