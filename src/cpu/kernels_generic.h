#pragma once
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cpu/decode_rows.h"
#include "cpu/kernels.h"

// The loops behind Kernels over the vectors of one simd_<isa>.h, which each kernels_<isa>.cpp
// includes before this file and compiles with that instruction set's flags.  Everything has
// internal linkage, so that code built for one instruction set cannot stand in for another's.
//
// One product of a quantised weight row with an activation row, always in this order:
//   per 256 columns: 16 integer sums of 16 columns each (exact, so their order is free),
//   to f32, times the weight scale (for formats with a scale per 32 columns: per 32),
//   times the activation scale, added to 16 f32 lanes; mins times activation sums likewise;
//   at the end the lanes are added in halves.
namespace ds4::cpu {
namespace {

constexpr std::size_t kDotLanes = 32;

float dot_generic(const float* a, const float* b, std::size_t count) {
  std::array<float, kDotLanes> lanes{};
  std::size_t i = 0;
  for (; i + kDotLanes <= count; i += kDotLanes)
    for (std::size_t l = 0; l < kDotLanes; ++l)
      lanes[l] += a[i + l] * b[i + l];
  for (std::size_t l = 0; i + l < count; ++l)
    lanes[l] += a[i + l] * b[i + l];
  for (std::size_t half = kDotLanes / 2; half != 0; half /= 2)
    for (std::size_t l = 0; l < half; ++l)
      lanes[l] += lanes[l + half];
  return lanes[0];
}

void add_scaled_generic(float* sum, const float* a, float scale, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    sum[i] += scale * a[i];
}

void decode_f16_generic(const std::byte* bits, float* values, std::size_t count) {
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16)
    F32x16::load_f16(bits + 2 * i).store(values + i);
  for (; i < count; ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, bits + 2 * i, sizeof(half));
    values[i] = half_value(half);
  }
}

// Rounds to nearest even by pushing the fraction out of an f32's mantissa; |x| < 2^22.
std::int32_t round_to_int(float x) {
  return std::bit_cast<std::int32_t>(x + 12582912.0F) - 0x4B400000;
}

void quantize_block(
    const float* values, std::size_t count, std::int16_t* codes, float* scale, float* sums) {
  std::array<float, kActivationBlock> padded{};
  std::memcpy(padded.data(), values, count * sizeof(float));
  std::array<float, 16> largest{};
  for (std::size_t i = 0; i < kActivationBlock; i += 16)
    for (std::size_t l = 0; l < 16; ++l)
      largest[l] = std::fabs(padded[i + l]) > largest[l] ? std::fabs(padded[i + l]) : largest[l];
  float amax = 0;
  for (const float lane : largest)
    amax = lane > amax ? lane : amax;
  const float inverse = amax > 0 ? 32767.0F / amax : 0.0F;
  *scale = amax / 32767.0F;
  std::array<std::int32_t, kActivationBlock> rounded;  // NOLINT: filled before use
  for (std::size_t i = 0; i < kActivationBlock; ++i)
    rounded[i] = round_to_int(padded[i] * inverse);
  for (std::size_t s = 0; s < kActivationBlock / kSumBlock; ++s) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < kSumBlock; ++i)
      sum += rounded[s * kSumBlock + i];
    sums[s] = static_cast<float>(sum) * *scale;
  }
  for (std::size_t i = 0; i < count; ++i)
    codes[i] = static_cast<std::int16_t>(rounded[i]);
}

void quantize_row_generic(
    const float* values, std::size_t count, std::int16_t* codes, float* scales, float* sums) {
  for (std::size_t i = 0, b = 0; i < count; i += kActivationBlock, ++b) {
    const std::size_t block = count - i < kActivationBlock ? count - i : kActivationBlock;
    quantize_block(values + i, block, codes + i, scales + b, sums + b * 16);
  }
}

float add_lanes(const F32x16& sum) {
  std::array<float, 16> lanes;  // NOLINT: filled before use
  sum.store(lanes.data());
  for (std::size_t half = 8; half != 0; half /= 2)
    for (std::size_t l = 0; l < half; ++l)
      lanes[l] += lanes[l + half];
  return lanes[0];
}

// Columns whose decoded weights one call keeps, and weight rows decoded at a time within them.
constexpr std::size_t kDecodedValuesMax = 65536;
constexpr std::size_t kDecodedRowsMax = 16;

// Decoded weight rows of one call, on its stack.
struct DecodedTile {
  alignas(64) std::array<std::int16_t, kDecodedValuesMax> codes;
  std::array<float, kDecodedValuesMax / 32> scales;
  std::array<float, kDecodedValuesMax / 16> negative_mins;

  DecodedRow row(std::size_t r, std::size_t columns, std::size_t scale_values) {
    const std::size_t scale_count = (columns + scale_values - 1) / scale_values;
    return {codes.data() + r * columns, scales.data() + r * scale_count,
            negative_mins.data() + r * (columns / 16)};
  }
};

// OUTPUTS weight rows times ROWS activation rows.
template <class Format, std::size_t OUTPUTS, std::size_t ROWS>
void multiply_tile(const DecodedRow* weights,
                   const QuantizedRow* const* rows,
                   std::size_t columns,
                   float* const* outputs,
                   std::size_t first_output) {
  F32x16 sums[OUTPUTS][ROWS];
  for (auto& row : sums)
    for (F32x16& sum : row)
      sum = F32x16::zero();
  for (std::size_t b = 0; b * kActivationBlock < columns; ++b) {
    const std::size_t begin = b * kActivationBlock;
    const std::size_t end = begin + kActivationBlock < columns ? begin + kActivationBlock : columns;
    if constexpr (Format::kScaleValues == 32) {
      F32x16 parts[OUTPUTS][ROWS];
      for (auto& row : parts)
        for (F32x16& part : row)
          part = F32x16::zero();
      for (std::size_t i = begin; i < end; i += 32) {
        for (std::size_t o = 0; o < OUTPUTS; ++o) {
          const I16x32 w = I16x32::load(weights[o].codes + i);
          const F32x16 scale = F32x16::broadcast(weights[o].scales[i / 32]);
          for (std::size_t r = 0; r < ROWS; ++r) {
            const I32x16 dot =
                I32x16::add_pairs(I32x16::zero(), w, I16x32::load(rows[r]->codes + i));
            parts[o][r] = F32x16::multiply_add(dot.to_f32(), scale, parts[o][r]);
          }
        }
      }
      for (std::size_t o = 0; o < OUTPUTS; ++o)
        for (std::size_t r = 0; r < ROWS; ++r)
          sums[o][r] =
              F32x16::multiply_add(parts[o][r], F32x16::broadcast(rows[r]->scales[b]), sums[o][r]);
    } else {
      I32x16 dots[OUTPUTS][ROWS];
      for (auto& row : dots)
        for (I32x16& dot : row)
          dot = I32x16::zero();
      for (std::size_t i = begin; i < end; i += 32) {
        I16x32 w[OUTPUTS];
        for (std::size_t o = 0; o < OUTPUTS; ++o)
          w[o] = I16x32::load(weights[o].codes + i);
        for (std::size_t r = 0; r < ROWS; ++r) {
          const I16x32 a = I16x32::load(rows[r]->codes + i);
          for (std::size_t o = 0; o < OUTPUTS; ++o)
            dots[o][r] = I32x16::add_pairs(dots[o][r], w[o], a);
        }
      }
      for (std::size_t o = 0; o < OUTPUTS; ++o) {
        for (std::size_t r = 0; r < ROWS; ++r) {
          const F32x16 scale = F32x16::broadcast(weights[o].scales[b] * rows[r]->scales[b]);
          sums[o][r] = F32x16::multiply_add(dots[o][r].to_f32(), scale, sums[o][r]);
          if constexpr (Format::kHasMins) {
            sums[o][r] = F32x16::multiply_add(F32x16::load(weights[o].negative_mins + 16 * b),
                                              F32x16::load(rows[r]->sums + 16 * b), sums[o][r]);
          }
        }
      }
    }
  }
  for (std::size_t o = 0; o < OUTPUTS; ++o)
    for (std::size_t r = 0; r < ROWS; ++r)
      outputs[r][first_output + o] = add_lanes(sums[o][r]);
}

template <class Format, std::size_t OUTPUTS>
void multiply_rows(const QuantizedProduct& p, const DecodedRow* weights, std::size_t first_output) {
  std::size_t r = 0;
  for (; r + kTileRows <= p.row_count; r += kTileRows)
    multiply_tile<Format, OUTPUTS, kTileRows>(weights, p.rows + r, p.columns, p.outputs + r,
                                              first_output);
  for (; r < p.row_count; ++r)
    multiply_tile<Format, OUTPUTS, 1>(weights, p.rows + r, p.columns, p.outputs + r, first_output);
}

template <class Format>
void multiply_format(const QuantizedProduct& p) {
  DecodedTile tile;  // NOLINT: filled before use
  const std::size_t fit = kDecodedValuesMax / p.columns;
  const std::size_t rows_max = fit < kDecodedRowsMax ? fit : kDecodedRowsMax;
  for (std::size_t first = 0; first < p.output_count; first += rows_max) {
    const std::size_t count = p.output_count - first < rows_max ? p.output_count - first : rows_max;
    std::array<DecodedRow, kDecodedRowsMax> weights;  // NOLINT: filled before use
    for (std::size_t o = 0; o < count; ++o) {
      weights[o] = tile.row(o, p.columns, Format::kScaleValues);
      Format::decode(p.weights + (first + o) * p.row_bytes, p.columns, weights[o]);
    }
    std::size_t o = 0;
    for (; o + kTileOutputs <= count; o += kTileOutputs)
      multiply_rows<Format, kTileOutputs>(p, weights.data() + o, first + o);
    for (; o < count; ++o)
      multiply_rows<Format, 1>(p, weights.data() + o, first + o);
  }
}

void multiply_quantized_generic(const QuantizedProduct& p) {
  switch (p.type) {
    case ElementType::kQ8_0:
      return multiply_format<DecodeQ8>(p);
    case ElementType::kQ2K:
      return multiply_format<DecodeQ2K>(p);
    case ElementType::kQ4K:
      return multiply_format<DecodeQ4K>(p);
    case ElementType::kIQ2XXS:
      return multiply_format<DecodeIq2>(p);
    case ElementType::kMXFP4:
      return multiply_format<DecodeMxfp4>(p);
    case ElementType::kF32:
    case ElementType::kF16:
    case ElementType::kBF16:
    case ElementType::kI32:
      return;
  }
}

constexpr Kernels make_kernels(const char* name) {
  return {name,
          dot_generic,
          add_scaled_generic,
          decode_f16_generic,
          quantize_row_generic,
          multiply_quantized_generic};
}

}  // namespace
}  // namespace ds4::cpu
