#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "cpu/decode_blocks.h"

// The decoders of decode_blocks.h in 512-bit registers, to the same bits.
namespace ds4::cpu {
namespace {

inline __m256i load_256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

inline void store_256(std::int8_t* p, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}

// The f16 numbers d of eight blocks, gathered in integer registers: their bytes lie apart.
template <class Block>
__m256 gather_halves(const Block* blocks) {
  const auto four = [](const Block* b) {
    return static_cast<long long>(std::uint64_t{b[0].d} | std::uint64_t{b[1].d} << 16 |
                                  std::uint64_t{b[2].d} << 32 | std::uint64_t{b[3].d} << 48);
  };
  return _mm256_cvtph_ps(_mm_set_epi64x(four(blocks + 4), four(blocks)));
}

struct DecodeQ8Avx512 {
  static constexpr std::size_t kBytes = DecodeQ8::kBytes;
  static constexpr bool kHasMins = false;
  static void decode(const std::byte* row, std::size_t b, std::size_t count, WeightBlock& out) {
    if (count < 8) return DecodeQ8::decode(row, b, count, out);
    const auto* blocks = blocks_of<quant::Q8_0::Block>(row) + 8 * b;
    _mm256_store_ps(out.scales.data(), gather_halves(blocks));
    for (std::size_t j = 0; j < 8; ++j)
      store_256(out.codes.data() + 32 * j, load_256(blocks[j].q.data()));
  }
};

struct DecodeMxfp4Avx512 {
  static constexpr std::size_t kBytes = DecodeMxfp4::kBytes;
  static constexpr bool kHasMins = false;
  static void decode(const std::byte* row, std::size_t b, std::size_t count, WeightBlock& out) {
    if (count < 8) return DecodeMxfp4::decode(row, b, count, out);
    const auto* blocks = blocks_of<quant::MXFP4::Block>(row) + 8 * b;
    const __m256i twice = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(DecodeMxfp4::kTwice.data())));
    std::uint64_t exponents = 0;
    for (unsigned j = 0; j < 8; ++j) {
      exponents |= std::uint64_t{blocks[j].e} << (8 * j);
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks[j].qs.data()));
      const __m256i nibbles =
          _mm256_inserti128_si256(_mm256_castsi128_si256(bits), _mm_srli_epi16(bits, 4), 1);
      store_256(out.codes.data() + 32 * j,
                _mm256_shuffle_epi8(twice, _mm256_and_si256(nibbles, _mm256_set1_epi8(15))));
    }
    const __m256i e = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(exponents)));
    // Code 0 is a subnormal: see e8m0_to_f32().
    const __m256i bits = _mm256_mask_mov_epi32(
        _mm256_slli_epi32(e, 23), _mm256_testn_epi32_mask(e, e), _mm256_set1_epi32(0x00400000));
    _mm256_store_ps(out.scales.data(),
                    _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0.5F)));
  }
};

struct DecodeQ2KAvx512 {
  static constexpr std::size_t kBytes = DecodeQ2K::kBytes;
  static constexpr bool kHasMins = true;
  static void decode(const std::byte* row, std::size_t b, std::size_t, WeightBlock& out) {
    const auto& block = blocks_of<quant::Q2K::Block>(row)[b];
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.scales.data()));
    const __m512i scales = _mm512_broadcast_i32x4(_mm_and_si128(packed, _mm_set1_epi8(15)));
    const __m512i bits = _mm512_loadu_si512(block.qs.data());
    // Lanes of 16 bytes are the sub-blocks 2j, 2j + 1, 8 + 2j, 8 + 2j + 1.
    __m512i lane =
        _mm512_setr_epi64(0, 0, 0x0101010101010101, 0x0101010101010101, 0x0808080808080808,
                          0x0808080808080808, 0x0909090909090909, 0x0909090909090909);
    for (unsigned j = 0; j < 4; ++j) {
      const __m512i scale = _mm512_shuffle_epi8(scales, lane);
      lane = _mm512_add_epi8(lane, _mm512_set1_epi8(2));
      const __mmask64 one =
          _mm512_test_epi8_mask(bits, _mm512_set1_epi8(static_cast<char>(1U << (2 * j))));
      const __mmask64 two =
          _mm512_test_epi8_mask(bits, _mm512_set1_epi8(static_cast<char>(2U << (2 * j))));
      const __m512i low = _mm512_maskz_mov_epi8(one, scale);
      const __m512i codes = _mm512_mask_add_epi8(low, two, low, _mm512_add_epi8(scale, scale));
      store_256(out.codes.data() + 32 * j, _mm512_castsi512_si256(codes));
      store_256(out.codes.data() + 128 + 32 * j, _mm512_extracti64x4_epi64(codes, 1));
    }
    const __m128i mins = _mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15));
    _mm256_store_ps(out.scales.data(), _mm256_set1_ps(_cvtsh_ss(block.d)));
    _mm512_store_ps(out.negative_mins.data(),
                    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(mins)),
                                  _mm512_set1_ps(-_cvtsh_ss(block.dmin))));
  }
};

struct DecodeQ4KAvx512 {
  static constexpr std::size_t kBytes = DecodeQ4K::kBytes;
  static constexpr bool kHasMins = true;
  static void decode(const std::byte* row, std::size_t b, std::size_t, WeightBlock& out) {
    const auto& block = blocks_of<quant::Q4K::Block>(row)[b];
    std::array<std::uint8_t, 8> scales;  // NOLINT: filled before use
    std::array<std::uint8_t, 8> mins;    // NOLINT: filled before use
    unpack_q4k_scales(block, scales, mins);
    const auto widen = [](const std::array<std::uint8_t, 8>& bytes) {
      return _mm256_cvtepi32_ps(
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes.data()))));
    };
    _mm256_store_ps(out.scales.data(),
                    _mm256_mul_ps(widen(scales), _mm256_set1_ps(_cvtsh_ss(block.d))));
    const __m256 negative = _mm256_mul_ps(widen(mins), _mm256_set1_ps(-_cvtsh_ss(block.dmin)));
    const __m512i doubled = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    _mm512_store_ps(out.negative_mins.data(),
                    _mm512_permutexvar_ps(doubled, _mm512_castps256_ps512(negative)));
    const __m256i nibble = _mm256_set1_epi8(15);
    for (std::size_t g = 0; g < 4; ++g) {
      const __m256i bits = load_256(block.qs.data() + 32 * g);
      store_256(out.codes.data() + 64 * g, _mm256_and_si256(bits, nibble));
      store_256(out.codes.data() + 64 * g + 32,
                _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble));
    }
  }
};

struct DecodeIq2Avx512 {
  static constexpr std::size_t kBytes = DecodeIq2::kBytes;
  static constexpr bool kHasMins = false;

  // The 16-bit codebook entries of 32 indices, one a word: four tables of 64, then a choice by the
  // upper two bits.
  static __m512i look_up(__m512i index) {
    const auto part = [&](std::size_t p) {
      const std::uint16_t* codes = quant::kIq2XxsCodes.data() + 64 * p;
      return _mm512_permutex2var_epi16(_mm512_loadu_si512(codes), index,
                                       _mm512_loadu_si512(codes + 32));
    };
    const __mmask32 bit6 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
    const __mmask32 bit7 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
    const __m512i low = _mm512_mask_mov_epi16(part(0), bit6, part(1));
    return _mm512_mask_mov_epi16(low, bit7, _mm512_mask_mov_epi16(part(2), bit6, part(3)));
  }

  // The eight sign bits of 32 sub-groups: seven of the file, then their parity.
  static std::array<std::uint64_t, 4> sign_masks(__m512i groups) {
    const __m512i fields = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x352E2720), groups);
    const __m512i signs =
        _mm512_gf2p8affine_epi64_epi8(fields, _mm512_set1_epi64(0x010204081020407F), 0);
    std::array<std::uint64_t, 4> masks;  // NOLINT: filled before use
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(masks.data()), _mm512_cvtepi64_epi32(signs));
    return masks;
  }

  static void decode(const std::byte* row, std::size_t b, std::size_t, WeightBlock& out) {
    const auto& block = blocks_of<quant::IQ2XXS::Block>(row)[b];
    const __m512i groups = _mm512_loadu_si512(block.qs.data());
    const __m512i entries = look_up(_mm512_cvtepu8_epi16(_mm512_cvtepi64_epi32(groups)));
    const std::array<std::uint64_t, 4> negative = sign_masks(groups);
    const __m512i levels = _mm512_set1_epi32(0x002B1908);  // bytes 8, 25, 43
    const __m512i fields = _mm512_set1_epi64(0x0E0C0A0806040200);
    const auto expand = [&](__m128i words, std::uint64_t signs, std::int8_t* codes) {
      const __m512i spread = _mm512_multishift_epi64_epi8(fields, _mm512_cvtepu16_epi64(words));
      const __m512i magnitudes =
          _mm512_shuffle_epi8(levels, _mm512_and_si512(spread, _mm512_set1_epi8(3)));
      _mm512_storeu_si512(
          codes, _mm512_mask_sub_epi8(magnitudes, signs, _mm512_setzero_si512(), magnitudes));
    };
    expand(_mm512_castsi512_si128(entries), negative[0], out.codes.data());
    expand(_mm512_extracti32x4_epi32(entries, 1), negative[1], out.codes.data() + 64);
    expand(_mm512_extracti32x4_epi32(entries, 2), negative[2], out.codes.data() + 128);
    expand(_mm512_extracti32x4_epi32(entries, 3), negative[3], out.codes.data() + 192);
    const __m256i nibbles = _mm512_cvtepi64_epi32(_mm512_srli_epi64(groups, 60));
    const __m256i odd = _mm256_add_epi32(_mm256_slli_epi32(nibbles, 1), _mm256_set1_epi32(1));
    _mm256_store_ps(out.scales.data(), _mm256_mul_ps(_mm256_cvtepi32_ps(odd),
                                                     _mm256_set1_ps(0.125F * _cvtsh_ss(block.d))));
  }
};

}  // namespace
}  // namespace ds4::cpu
