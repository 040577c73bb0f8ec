#pragma once
#include <cstddef>
#include <cstdint>

#include "tensor/element_type.h"

namespace ds4::cpu {

// Values of an activation row that share one scale.
inline constexpr std::size_t kActivationBlock = 256;
// Values per entry of an activation row's sums.
inline constexpr std::size_t kSumBlock = 16;

// An activation row as 16-bit integers: value = code * scale of its block of 256.  Fifteen bits
// keep the error at 2^-16 of the block's largest value, below that of f32 sums over long rows,
// while integer dot products run at twice the rate of f32 ones and more.  The last block may be
// short.
struct QuantizedRow {
  const std::int16_t* codes;  // [columns]
  const float* scales;        // [columns / 256, rounded up]
  const float* sums;          // [columns / 16, rounded up to blocks]: scale * sum of 16 codes
};

// One block of outputs of a matrix product with quantised weights.
struct QuantizedProduct {
  ElementType type;
  const std::byte* weights;  // first row
  std::size_t row_bytes;     // to the next row
  std::size_t columns;       // a multiple of 32; of 256 for the K formats
  std::size_t output_count;  // weight rows
  const QuantizedRow* const* rows;
  std::size_t row_count;
  float* const* outputs;  // [row_count], each [output_count] at its own start
};

// The inner loops that every instruction set gets its own build of.  Sums have a fixed order that
// depends on the count alone: a result does not depend on what else is computed beside it.
struct Kernels {
  const char* name;  // "portable", "avx2", "avx512"
  // sum over i of a[i] * b[i]
  float (*dot)(const float* a, const float* b, std::size_t count);
  // sum[i] += scale * a[i]
  void (*add_scaled)(float* sum, const float* a, float scale, std::size_t count);
  // f16 bits to f32.
  void (*decode_f16)(const std::byte* bits, float* values, std::size_t count);
  // Fills codes, scales and sums (see QuantizedRow); the tail of the last block is zeroed.
  void (*quantize_row)(
      const float* values, std::size_t count, std::int16_t* codes, float* scales, float* sums);
  // outputs[r][o] = sum over columns of weights[o] * rows[r].
  void (*multiply_quantized)(const QuantizedProduct& product);
};

// True for the types that multiply_quantized() takes.
constexpr bool is_quantized(ElementType type) {
  return type == ElementType::kQ8_0 || type == ElementType::kQ2K || type == ElementType::kQ4K ||
         type == ElementType::kIQ2XXS || type == ElementType::kMXFP4;
}

// The portable build: the reference for the others.
const Kernels& portable_kernels();

// The best build that this processor runs.  Cost: one CPUID query on first use.
const Kernels& best_kernels();

}  // namespace ds4::cpu
