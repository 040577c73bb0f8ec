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

// Quantised weights as bytes for integer dot products.  Included by each instruction set's build of
// the kernels, hence the internal linkage.
namespace ds4::cpu {
namespace {

// 256 columns of a weight row: value = code * scale of its 32 + negative_min of its 16.
struct WeightBlock {
  alignas(64) std::array<std::int8_t, 256> codes;
  alignas(32) std::array<float, 8> scales;
  alignas(64) std::array<float, 16> negative_mins;  // of formats that have mins
};

template <class Block>
const Block* blocks_of(const std::byte* row) {
  return reinterpret_cast<const Block*>(row);
}

inline float half_value(std::uint16_t bits) {
  return f16_to_f32(bits);
}

// Codes and scales from `count` blocks of 32 on, which a short last block does not have.
inline void clear_tail(WeightBlock& out, std::size_t count) {
  for (std::size_t j = count; j < 8; ++j) {
    std::memset(out.codes.data() + 32 * j, 0, 32);
    out.scales[j] = 0;
  }
}

// The low two bits of each byte in four fields of a 32-bit word.
inline std::uint32_t low_pairs(std::uint32_t x) {
  return x & 0x03030303U;
}

// The scales and mins of a Q4_K block as bytes (quant::Q4K::scale_and_min), four at a time.
inline void unpack_q4k_scales(const quant::Q4K::Block& block,
                              std::array<std::uint8_t, 8>& scales,
                              std::array<std::uint8_t, 8>& mins) {
  std::array<std::uint32_t, 3> w;  // NOLINT: filled before use
  std::memcpy(w.data(), block.scales.data(), 12);
  const std::array<std::uint32_t, 2> s = {w[0] & 0x3F3F3F3FU,
                                          (w[2] & 0x0F0F0F0FU) | (low_pairs(w[0] >> 6) << 4)};
  const std::array<std::uint32_t, 2> m = {
      w[1] & 0x3F3F3F3FU, ((w[2] >> 4) & 0x0F0F0F0FU) | (low_pairs(w[1] >> 6) << 4)};
  std::memcpy(scales.data(), s.data(), 8);
  std::memcpy(mins.data(), m.data(), 8);
}

// Codebook rows of IQ2_XXS as eight bytes, and sign patterns as eight bytes of 0 or 255.
struct Iq2Tables {
  std::array<std::uint64_t, 256> rows{};
  std::array<std::uint64_t, 128> signs{};
};

inline const Iq2Tables& iq2_tables() {
  static const Iq2Tables kTables = [] {
    Iq2Tables t;
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

// kBytes of a weight row hold 256 columns.  Each Decode<Format>::decode() fills block `b` (256
// columns) of a row; `count` of its eight blocks of 32 exist.
struct DecodeQ8 {
  static constexpr std::size_t kBytes = 8 * sizeof(quant::Q8_0::Block);
  static constexpr bool kHasMins = false;
  static void decode(const std::byte* row, std::size_t b, std::size_t count, WeightBlock& out) {
    const auto* blocks = blocks_of<quant::Q8_0::Block>(row) + 8 * b;
    for (std::size_t j = 0; j < count; ++j) {
      out.scales[j] = half_value(blocks[j].d);
      std::memcpy(out.codes.data() + 32 * j, blocks[j].q.data(), 32);
    }
    clear_tail(out, count);
  }
};

struct DecodeMxfp4 {
  static constexpr std::size_t kBytes = 8 * sizeof(quant::MXFP4::Block);
  static constexpr bool kHasMins = false;
  // Twice the E2M1 value of a code.
  static constexpr std::array<std::int8_t, 16> kTwice = {0, 1,  2,  3,  4,  6,  8,  12,
                                                         0, -1, -2, -3, -4, -6, -8, -12};
  static void decode(const std::byte* row, std::size_t b, std::size_t count, WeightBlock& out) {
    const auto* blocks = blocks_of<quant::MXFP4::Block>(row) + 8 * b;
    for (std::size_t j = 0; j < count; ++j) {
      out.scales[j] = 0.5F * e8m0_to_f32(blocks[j].e);
      std::int8_t* codes = out.codes.data() + 32 * j;
      for (std::size_t i = 0; i < 16; ++i) {
        codes[i] = kTwice[blocks[j].qs[i] & 15];
        codes[16 + i] = kTwice[blocks[j].qs[i] >> 4];
      }
    }
    clear_tail(out, count);
  }
};

struct DecodeQ2K {
  static constexpr std::size_t kBytes = sizeof(quant::Q2K::Block);
  static constexpr bool kHasMins = true;
  static void decode(const std::byte* row, std::size_t b, std::size_t, WeightBlock& out) {
    const auto& block = blocks_of<quant::Q2K::Block>(row)[b];
    out.scales.fill(half_value(block.d));
    const float dmin = half_value(block.dmin);
    for (std::size_t s = 0; s < 16; ++s) {
      // Sub-block s holds 16 values: half s / 8, shift 2 * (s % 8 / 2), bytes from 16 * (s % 2).
      out.negative_mins[s] = -dmin * static_cast<float>(block.scales[s] >> 4);
      const unsigned scale = block.scales[s] & 15U;
      const auto shift = static_cast<unsigned>(s % 8 / 2 * 2);
      const std::uint8_t* bits = block.qs.data() + s / 8 * 32 + s % 2 * 16;
      std::int8_t* codes = out.codes.data() + 16 * s;
      for (std::size_t i = 0; i < 16; ++i)
        codes[i] = static_cast<std::int8_t>(scale * ((bits[i] >> shift) & 3U));
    }
  }
};

struct DecodeQ4K {
  static constexpr std::size_t kBytes = sizeof(quant::Q4K::Block);
  static constexpr bool kHasMins = true;
  static void decode(const std::byte* row, std::size_t b, std::size_t, WeightBlock& out) {
    const auto& block = blocks_of<quant::Q4K::Block>(row)[b];
    std::array<std::uint8_t, 8> scales;  // NOLINT: filled before use
    std::array<std::uint8_t, 8> mins;    // NOLINT: filled before use
    unpack_q4k_scales(block, scales, mins);
    const float d = half_value(block.d);
    const float dmin = half_value(block.dmin);
    for (std::size_t s = 0; s < 8; ++s) {
      out.scales[s] = d * static_cast<float>(scales[s]);
      const float min = -dmin * static_cast<float>(mins[s]);
      out.negative_mins[2 * s] = min;
      out.negative_mins[2 * s + 1] = min;
    }
    for (std::size_t g = 0; g < 4; ++g) {
      for (std::size_t i = 0; i < 32; ++i) {
        out.codes[64 * g + i] = static_cast<std::int8_t>(block.qs[32 * g + i] & 15);
        out.codes[64 * g + 32 + i] = static_cast<std::int8_t>(block.qs[32 * g + i] >> 4);
      }
    }
  }
};

struct DecodeIq2 {
  static constexpr std::size_t kBytes = sizeof(quant::IQ2XXS::Block);
  static constexpr bool kHasMins = false;
  static void decode(const std::byte* row, std::size_t b, std::size_t, WeightBlock& out) {
    const Iq2Tables& t = iq2_tables();
    const auto& block = blocks_of<quant::IQ2XXS::Block>(row)[b];
    const float d = 0.125F * half_value(block.d);
    for (std::size_t g = 0; g < 8; ++g) {
      std::uint32_t indices = 0;
      std::uint32_t packed = 0;
      std::memcpy(&indices, &block.qs[4 * g], 4);
      std::memcpy(&packed, &block.qs[4 * g + 2], 4);
      out.scales[g] = d * static_cast<float>(2 * (packed >> 28) + 1);
      for (std::size_t k = 0; k < 4; ++k) {
        const std::uint64_t magnitudes = t.rows[(indices >> (8 * k)) & 255];
        const std::uint64_t negate = t.signs[(packed >> (7 * k)) & 127];
        // Bytewise negation without carries: magnitudes are at most 43 and never 0.
        const std::uint64_t bytes = (magnitudes ^ negate) + (negate & 0x0101010101010101ULL);
        std::memcpy(out.codes.data() + 32 * g + 8 * k, &bytes, 8);
      }
    }
  }
};

}  // namespace
}  // namespace ds4::cpu
