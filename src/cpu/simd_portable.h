#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/float16.h"

// Vectors of fixed width as plain arrays: what simd_avx2.h and simd_avx512.h do with registers.
namespace ds4::cpu {
namespace {

// Weight rows times activation rows that one tile keeps in registers.
constexpr std::size_t kTileOutputs = 2;
constexpr std::size_t kTileRows = 2;

struct I16x32 {
  std::int16_t v[32];
  static I16x32 load(const std::int16_t* p) {
    I16x32 r;
    std::memcpy(r.v, p, sizeof(r.v));
    return r;
  }
};

struct F32x16 {
  float v[16];
  static F32x16 zero() { return {}; }
  static F32x16 broadcast(float x) {
    F32x16 r;
    for (float& lane : r.v)
      lane = x;
    return r;
  }
  static F32x16 load(const float* p) {
    F32x16 r;
    std::memcpy(r.v, p, sizeof(r.v));
    return r;
  }
  static F32x16 load_f16(const std::byte* p) {
    F32x16 r;
    for (std::size_t i = 0; i < 16; ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, p + 2 * i, sizeof(bits));
      r.v[i] = f16_to_f32(bits);
    }
    return r;
  }
  void store(float* p) const { std::memcpy(p, v, sizeof(v)); }
  // a * b + c
  static F32x16 multiply_add(const F32x16& a, const F32x16& b, const F32x16& c) {
    F32x16 r;
    for (std::size_t i = 0; i < 16; ++i)
      r.v[i] = a.v[i] * b.v[i] + c.v[i];
    return r;
  }
};

struct I32x16 {
  std::int32_t v[16];
  static I32x16 zero() { return {}; }
  // Lane i gains a[2i] * b[2i] + a[2i + 1] * b[2i + 1].
  static I32x16 add_pairs(const I32x16& sum, const I16x32& a, const I16x32& b) {
    I32x16 r = sum;
    for (std::size_t i = 0; i < 16; ++i)
      r.v[i] +=
          std::int32_t{a.v[2 * i]} * b.v[2 * i] + std::int32_t{a.v[2 * i + 1]} * b.v[2 * i + 1];
    return r;
  }
  F32x16 to_f32() const {
    F32x16 r;
    for (std::size_t i = 0; i < 16; ++i)
      r.v[i] = static_cast<float>(v[i]);
    return r;
  }
};

}  // namespace
}  // namespace ds4::cpu
