#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/simd_x86.h"

// The vectors of simd_portable.h in 512-bit registers.
namespace ds4::cpu {
namespace {

// 16 sums either way, 8 operands: 24 of 32 registers.
constexpr std::size_t kIntRows = 8;
constexpr std::size_t kIntPanels = 2;
constexpr std::size_t kFloatOutputs = 4;
constexpr std::size_t kFloatRows = 4;

struct F32x16 {
  __m512 v;
  static F32x16 zero() { return {_mm512_setzero_ps()}; }
  static F32x16 broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static F32x16 load_f16(const std::byte* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static F32x16 load_bf16(const std::byte* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  static F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
  static F32x16 multiply(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static F32x16 multiply_add(F32x16 a, F32x16 b, F32x16 c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  float add_lanes() const {
    return F32x8{_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))}
        .add_lanes();
  }
};

struct I16x32 {
  __m512i v;
  static I16x32 load(const std::int16_t* p) { return {_mm512_loadu_si512(p)}; }
  static I16x32 broadcast_pair(const std::int16_t* p) {
    std::int32_t pair = 0;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return {_mm512_set1_epi32(pair)};
  }
};

struct I32x16 {
  __m512i v;
  static I32x16 zero() { return {_mm512_setzero_si512()}; }
  static I32x16 add_pairs(I32x16 sum, I16x32 a, I16x32 b) {
    return {_mm512_dpwssd_epi32(sum.v, a.v, b.v)};
  }
  static I32x16 add(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
  F32x16 to_f32() const { return {_mm512_cvtepi32_ps(v)}; }
};

// Sixteen rows of eight 32-bit values become eight columns of sixteen.
inline void interleave_block(const std::int8_t* codes, std::size_t stride, std::int16_t* out) {
  // Row i beside row i + 8, so that 128-bit lanes hold: row i low, row i high, row i + 8 low, high.
  __m512i v[8];
  for (std::size_t i = 0; i < 8; ++i) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i * stride));
    const auto* high = reinterpret_cast<const __m256i*>(codes + (i + 8) * stride);
    v[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm256_loadu_si256(high), 1);
  }
  __m512i t[8];
  for (std::size_t i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  // Columns 0 to 3 in the even lanes, 4 to 7 in the odd ones: of rows 0 to 3, then 4 to 7.
  __m512i u[8];
  for (std::size_t i = 0; i < 8; i += 4) {
    u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  const __m512i even_lanes = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
  const __m512i odd_lanes = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  for (std::size_t q = 0; q < 8; ++q) {
    const __m512i column =
        _mm512_permutex2var_epi64(u[q % 4], q < 4 ? even_lanes : odd_lanes, u[q % 4 + 4]);
    _mm512_storeu_si512(out + 32 * q, _mm512_srai_epi16(_mm512_slli_epi16(column, 8), 8));
    _mm512_storeu_si512(out + 32 * (8 + q), _mm512_srai_epi16(column, 8));
  }
}

}  // namespace
}  // namespace ds4::cpu
