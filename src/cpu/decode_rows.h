#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/iq2_xxs.h"
#include "quant/iq2_xxs_codebook.h"
#include "quant/mxfp4.h"
#include "quant/q2_k.h"
#include "quant/q4_k.h"
#include "quant/q8_0.h"
#include "tensor/float16.h"

// Weight rows as 16-bit integers for integer dot products.  Included by each instruction set's
// build of the kernels, hence the internal linkage.
namespace ds4::cpu {
namespace {

// Where one decoded weight row goes.  value = code * scale - min of its 16 values.
struct DecodedRow {
  std::int16_t* codes;   // [columns]
  float* scales;         // per 256 values, or per 32 for formats with a scale for each 32
  float* negative_mins;  // [columns / 16], for formats that have mins
};

template <class Block>
const Block& block_at(const std::byte* row, std::size_t index) {
  return reinterpret_cast<const Block*>(row)[index];
}

float half_value(std::uint16_t bits) {
  return f16_to_f32(bits);
}

struct DecodeQ8 {
  static constexpr std::size_t kScaleValues = 32;
  static constexpr bool kHasMins = false;
  static void decode(const std::byte* row, std::size_t columns, const DecodedRow& out) {
    for (std::size_t b = 0; b < columns / 32; ++b) {
      const auto& block = block_at<quant::Q8_0::Block>(row, b);
      out.scales[b] = half_value(block.d);
      for (std::size_t i = 0; i < 32; ++i)
        out.codes[32 * b + i] = block.q[i];
    }
  }
};

struct DecodeMxfp4 {
  static constexpr std::size_t kScaleValues = 32;
  static constexpr bool kHasMins = false;
  // Twice the E2M1 value of a code.
  static constexpr std::array<std::int8_t, 16> kTwice = {0, 1,  2,  3,  4,  6,  8,  12,
                                                         0, -1, -2, -3, -4, -6, -8, -12};
  static void decode(const std::byte* row, std::size_t columns, const DecodedRow& out) {
    for (std::size_t b = 0; b < columns / 32; ++b) {
      const auto& block = block_at<quant::MXFP4::Block>(row, b);
      out.scales[b] = 0.5F * e8m0_to_f32(block.e);
      for (std::size_t i = 0; i < 16; ++i) {
        out.codes[32 * b + i] = kTwice[block.qs[i] & 15];
        out.codes[32 * b + 16 + i] = kTwice[block.qs[i] >> 4];
      }
    }
  }
};

struct DecodeQ2K {
  static constexpr std::size_t kScaleValues = 256;
  static constexpr bool kHasMins = true;
  static void decode(const std::byte* row, std::size_t columns, const DecodedRow& out) {
    for (std::size_t b = 0; b < columns / 256; ++b) {
      const auto& block = block_at<quant::Q2K::Block>(row, b);
      out.scales[b] = half_value(block.d);
      const float dmin = half_value(block.dmin);
      for (std::size_t s = 0; s < 16; ++s) {
        // Sub-block s holds 16 values: half s / 8, shift 2 * (s % 8 / 2), bytes from 16 * (s % 2).
        out.negative_mins[16 * b + s] = -dmin * static_cast<float>(block.scales[s] >> 4);
        const auto scale = static_cast<std::int16_t>(block.scales[s] & 15);
        const unsigned shift = static_cast<unsigned>(s % 8 / 2 * 2);
        const std::uint8_t* bits = block.qs.data() + s / 8 * 32 + s % 2 * 16;
        std::int16_t* codes = out.codes + 256 * b + 16 * s;
        for (std::size_t i = 0; i < 16; ++i)
          codes[i] = static_cast<std::int16_t>(scale * ((bits[i] >> shift) & 3));
      }
    }
  }
};

struct DecodeQ4K {
  static constexpr std::size_t kScaleValues = 256;
  static constexpr bool kHasMins = true;
  static void decode(const std::byte* row, std::size_t columns, const DecodedRow& out) {
    for (std::size_t b = 0; b < columns / 256; ++b) {
      const auto& block = block_at<quant::Q4K::Block>(row, b);
      out.scales[b] = half_value(block.d);
      const float dmin = half_value(block.dmin);
      for (std::size_t s = 0; s < 8; ++s) {
        const auto part = quant::Q4K::scale_and_min(block, s);
        const float min = -dmin * static_cast<float>(part.min);
        out.negative_mins[16 * b + 2 * s] = min;
        out.negative_mins[16 * b + 2 * s + 1] = min;
        const auto scale = static_cast<std::int16_t>(part.scale);
        const unsigned shift = s % 2 == 0 ? 0 : 4;
        const std::uint8_t* bits = block.qs.data() + s / 2 * 32;
        std::int16_t* codes = out.codes + 256 * b + 32 * s;
        for (std::size_t i = 0; i < 32; ++i)
          codes[i] = static_cast<std::int16_t>(scale * ((bits[i] >> shift) & 15));
      }
    }
  }
};

struct DecodeIq2 {
  static constexpr std::size_t kScaleValues = 256;
  static constexpr bool kHasMins = false;

  // Codebook rows as eight bytes, and sign patterns as eight bytes of 0 or 255.
  struct Tables {
    std::array<std::uint64_t, 256> rows{};
    std::array<std::uint64_t, 128> signs{};
  };
  static const Tables& tables() {
    static const Tables kTables = [] {
      Tables t;
      for (std::size_t r = 0; r < 256; ++r)
        std::memcpy(&t.rows[r], quant::kIq2XxsGrid[r].data(), 8);
      for (std::size_t s = 0; s < 128; ++s) {
        const unsigned bits = quant::kIq2XxsSigns[s];
        for (unsigned j = 0; j < 8; ++j)
          if ((bits >> j) & 1U) t.signs[s] |= std::uint64_t{0xFF} << (8 * j);
      }
      return t;
    }();
    return kTables;
  }

  static void decode(const std::byte* row, std::size_t columns, const DecodedRow& out) {
    const Tables& t = tables();
    for (std::size_t b = 0; b < columns / 256; ++b) {
      const auto& block = block_at<quant::IQ2XXS::Block>(row, b);
      out.scales[b] = 0.125F * half_value(block.d);
      for (std::size_t g = 0; g < 8; ++g) {
        std::uint32_t indices = 0;
        std::uint32_t packed = 0;
        std::memcpy(&indices, &block.qs[4 * g], 4);
        std::memcpy(&packed, &block.qs[4 * g + 2], 4);
        const auto scale = static_cast<std::int16_t>(2 * (packed >> 28) + 1);
        alignas(32) std::int8_t values[32];
        for (unsigned k = 0; k < 4; ++k) {
          const std::uint64_t magnitudes = t.rows[(indices >> (8 * k)) & 255];
          const std::uint64_t negate = t.signs[(packed >> (7 * k)) & 127];
          // Bytewise negation without carries: magnitudes are at most 43 and never 0.
          const std::uint64_t bytes = (magnitudes ^ negate) + (negate & 0x0101010101010101ULL);
          std::memcpy(values + 8 * k, &bytes, 8);
        }
        std::int16_t* codes = out.codes + 256 * b + 32 * g;
        for (std::size_t i = 0; i < 32; ++i)
          codes[i] = static_cast<std::int16_t>(scale * values[i]);
      }
    }
  }
};

}  // namespace
}  // namespace ds4::cpu
