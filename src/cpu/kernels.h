#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/element_type.h"

namespace ds4::cpu {

// Values of an activation row that share one scale.
inline constexpr std::size_t kActivationBlock = 256;
// Values per entry of an activation row's sums.
inline constexpr std::size_t kSumBlock = 16;

// An activation row as 16-bit integers: value = code * scale of its block of 256.  Fifteen bits
// keep the error at 2^-16 of the block's largest value, below that of f32 sums over long rows,
// while integer dot products run at twice the rate of f32 ones and more.  All three are padded with
// zeros to whole blocks.  How 32 codes lie in their 64 bytes is the kernels' own affair.
struct QuantizedRow {
  const std::int16_t* codes;  // [columns]
  const float* scales;        // [columns / 256]
  const float* sums;          // [columns / 16]: scale * sum of 16 neighbouring codes
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

// The same with F32, F16 or BF16 weights, in f32.
struct FloatProduct {
  ElementType type;
  const std::byte* weights;  // first row
  std::size_t row_bytes;     // to the next row
  std::size_t columns;
  std::size_t output_count;
  const float* const* rows;
  std::size_t row_count;
  float* const* outputs;
};

// A list of rows of one width: `count` of them from `base` on, `stride` values apart; those that
// `index` names when it is not null.
struct RowList {
  const float* base = nullptr;
  std::size_t stride = 0;
  std::size_t count = 0;
  const std::int32_t* index = nullptr;
};

// Attention of some heads of one token over the same key/value rows, which are keys and values at
// once: outputs[h] = sum of softmax(scale * query . row) * row.  The sink of a head takes weight
// and has no value.
struct Attention {
  const float* queries;  // [head_count, dim]
  const float* sinks;    // [head_count]
  float* outputs;        // [head_count, dim]
  std::size_t head_count;
  std::size_t dim;  // a multiple of 16
  float scale;
  const RowList* lists;  // seen in this order
  std::size_t list_count;
};

// Indexer scores: scores[c] = sum over h of weights[h] * max(0, queries[h] . keys[c]).
struct KeyScores {
  const float* queries;  // [head_count, dim]
  const float* weights;  // [head_count]
  std::size_t head_count;
  std::size_t dim;    // a multiple of 16
  const float* keys;  // [key_count, dim]
  std::size_t key_count;
  float* scores;
};

// The inner loops that every instruction set gets its own build of.  Sums have a fixed order that
// depends on the count alone: a result does not depend on what else is computed beside it.
struct Kernels {
  const char* name;  // "portable", "avx2", "avx512", "neon", "neon_i8mm"
  // sum over i of a[i] * b[i]
  float (*dot)(const float* a, const float* b, std::size_t count);
  // sum[i] += scale * a[i]
  void (*add_scaled)(float* sum, const float* a, float scale, std::size_t count);
  // out[i] = a[i] * scale * weight[i]; a null weight means all ones
  void (*scale_weighted)(
      float* out, const float* a, float scale, const float* weight, std::size_t count);
  // gate[i] = silu(min(gate[i], limit)) * clamp(up[i], -limit, limit) * weight
  void (*swiglu)(float* gate, const float* up, float limit, float weight, std::size_t count);
  // streams[to][i] = post[to] * output[i] + sum over from of matrix[from][to] * streams[from][i]
  void (*expand_streams)(float* streams,
                         const float* output,
                         const float* post,
                         const float* matrix,
                         std::size_t stream_count,
                         std::size_t width);
  // out[j] = sum of softmax over i of scores[i][j] * values[i][j]
  void (*pool_rows)(float* out,
                    const float* const* values,
                    const float* const* scores,
                    std::size_t row_count,
                    std::size_t width);
  // E4M3 codes, E2M1 codes (two a byte, low nibble first; an even count) and 16-bit integers times
  // a scale.
  void (*unpack_e4m3)(const std::byte* codes, float scale, float* values, std::size_t count);
  void (*unpack_e2m1)(const std::byte* codes, float scale, float* values, std::size_t count);
  void (*unpack_i16)(const std::byte* codes, float scale, float* values, std::size_t count);
  // Fills codes, scales and sums (see QuantizedRow), the last block to its end.
  void (*quantize_row)(
      const float* values, std::size_t count, std::int16_t* codes, float* scales, float* sums);
  // outputs[r][o] = sum over columns of weights[o] * rows[r].
  void (*multiply_quantized)(const QuantizedProduct& product);
  void (*multiply_float)(const FloatProduct& product);
  void (*attend)(const Attention& attention);
  void (*score_keys)(const KeyScores& scores);
};

// Most heads of one call of attend().
inline constexpr std::size_t kAttentionHeadsMax = 8;

// True for the types that multiply_quantized() takes.
constexpr bool is_quantized(ElementType type) {
  return type == ElementType::kQ8_0 || type == ElementType::kQ2K || type == ElementType::kQ4K ||
         type == ElementType::kIQ2XXS || type == ElementType::kMXFP4;
}

// The portable build: the reference for the others.
const Kernels& portable_kernels();

// Every build that this processor runs, the portable one first and the best one last.
std::span<const Kernels* const> usable_kernels();

// The best build that this processor runs.  Cost: one CPUID query on first use.
const Kernels& best_kernels();

}  // namespace ds4::cpu
