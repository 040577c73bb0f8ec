#pragma once
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

// The vectors of simd_portable.h in 512-bit registers.
namespace ds4::cpu {
namespace {

// 8 integer and 8 float sums, 4 weights and 2 activations: 22 of 32 registers.
constexpr std::size_t kTileOutputs = 4;
constexpr std::size_t kTileRows = 2;

struct I16x32 {
  __m512i v;
  static I16x32 load(const std::int16_t* p) { return {_mm512_loadu_si512(p)}; }
};

struct F32x16 {
  __m512 v;
  static F32x16 zero() { return {_mm512_setzero_ps()}; }
  static F32x16 broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static F32x16 load_f16(const std::byte* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  static F32x16 multiply_add(F32x16 a, F32x16 b, F32x16 c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
};

struct I32x16 {
  __m512i v;
  static I32x16 zero() { return {_mm512_setzero_si512()}; }
  static I32x16 add_pairs(I32x16 sum, I16x32 a, I16x32 b) {
    return {_mm512_dpwssd_epi32(sum.v, a.v, b.v)};
  }
  F32x16 to_f32() const { return {_mm512_cvtepi32_ps(v)}; }
};

}  // namespace
}  // namespace ds4::cpu
