#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/simd_x86.h"

// The vectors of simd_portable.h in pairs of 256-bit registers.
namespace ds4::cpu {
namespace {

// Sixteen registers: eight sums, the rest operands.
constexpr std::size_t kIntRows = 4;
constexpr std::size_t kIntPanels = 1;
constexpr std::size_t kFloatOutputs = 2;
constexpr std::size_t kFloatRows = 2;

struct F32x16 {
  __m256 low, high;
  static F32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F32x16 broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F32x16 load_f16(const std::byte* p) {
    const auto* halves = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  static F32x16 load_bf16(const std::byte* p) {
    const auto* halves = reinterpret_cast<const __m128i*>(p);
    const auto widen = [](__m128i bits) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    };
    return {widen(_mm_loadu_si128(halves)), widen(_mm_loadu_si128(halves + 1))};
  }
  void store(float* p) const {
    _mm256_storeu_ps(p, low);
    _mm256_storeu_ps(p + 8, high);
  }
  static F32x16 add(F32x16 a, F32x16 b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static F32x16 multiply(F32x16 a, F32x16 b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static F32x16 multiply_add(F32x16 a, F32x16 b, F32x16 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  float add_lanes() const { return F32x8{_mm256_add_ps(low, high)}.add_lanes(); }
};

struct I16x32 {
  __m256i low, high;
  static I16x32 load(const std::int16_t* p) {
    const auto* halves = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
  }
  static I16x32 broadcast_pair(const std::int16_t* p) {
    std::int32_t pair = 0;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return {_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)};
  }
};

struct I32x16 {
  __m256i low, high;
  static I32x16 zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I32x16 add_pairs(I32x16 sum, I16x32 a, I16x32 b) {
    return {add_pairs_256(sum.low, a.low, b.low), add_pairs_256(sum.high, a.high, b.high)};
  }
  static I32x16 add(I32x16 a, I32x16 b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  F32x16 to_f32() const { return {_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)}; }
};

// Eight rows of eight 32-bit values become eight columns.
inline void transpose_8(__m256i (&v)[8]) {
  __m256i t[8];
  for (std::size_t i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
  }
  __m256i u[8];
  for (std::size_t i = 0; i < 8; i += 4) {
    u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (std::size_t i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
    v[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
  }
}

inline void interleave_block(const std::int8_t* codes, std::size_t stride, std::int16_t* out) {
  for (std::size_t half = 0; half < 2; ++half) {
    __m256i v[8];
    for (std::size_t o = 0; o < 8; ++o)
      v[o] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + (8 * half + o) * stride));
    transpose_8(v);
    for (std::size_t q = 0; q < 8; ++q) {
      auto* even = reinterpret_cast<__m256i*>(out + 32 * q + 16 * half);
      auto* odd = reinterpret_cast<__m256i*>(out + 32 * (8 + q) + 16 * half);
      _mm256_storeu_si256(even, _mm256_srai_epi16(_mm256_slli_epi16(v[q], 8), 8));
      _mm256_storeu_si256(odd, _mm256_srai_epi16(v[q], 8));
    }
  }
}

}  // namespace
}  // namespace ds4::cpu
