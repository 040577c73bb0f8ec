#pragma once
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

// 256-bit vectors of the x86 builds, in eight lanes: see simd_portable.h for what they mean.
namespace ds4::cpu {
namespace {

struct F32x8 {
  __m256 v;
  static F32x8 zero() { return {_mm256_setzero_ps()}; }
  static F32x8 broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static F32x8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static F32x8 multiply(F32x8 a, F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  static F32x8 multiply_add(F32x8 a, F32x8 b, F32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  float add_lanes() const {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};

struct I32x8 {
  __m256i v;
  F32x8 to_f32() const { return {_mm256_cvtepi32_ps(v)}; }
};

inline __m256i add_pairs_256(__m256i sum, __m256i a, __m256i b) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpwssd_epi32(sum, a, b);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

inline I32x8 dot_block(const std::int8_t* codes, const std::int16_t* row) {
  const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(c, 8), 8);
  const __m256i odd = _mm256_srai_epi16(c, 8);
  const auto* x = reinterpret_cast<const __m256i*>(row);
  const __m256i first = _mm256_madd_epi16(even, _mm256_loadu_si256(x));
  return {add_pairs_256(first, odd, _mm256_loadu_si256(x + 1))};
}

inline I32x8 join_lanes(const I32x8 (&parts)[8]) {
  const __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(parts[0].v, parts[1].v),
                                        _mm256_hadd_epi32(parts[2].v, parts[3].v));
  const __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(parts[4].v, parts[5].v),
                                         _mm256_hadd_epi32(parts[6].v, parts[7].v));
  return {_mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                           _mm256_permute2x128_si256(low, high, 0x31))};
}

}  // namespace
}  // namespace ds4::cpu
