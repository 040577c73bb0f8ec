#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/float16.h"

// Vectors of fixed width as plain arrays: what the other simd_*.h do with registers.  Weight codes
// are bytes; activation codes are 16-bit, each block of 32 stored as its 16 even ones, then its 16
// odd ones, since bytes widen to 16 bits in that order without shuffles.
namespace ds4::cpu {
namespace {

// What one tile of sums in registers holds: activation rows and panels of sixteen outputs of
// integer sums, outputs and rows of f32 sums.
constexpr std::size_t kIntRows = 4;
constexpr std::size_t kIntPanels = 1;
constexpr std::size_t kFloatOutputs = 2;
constexpr std::size_t kFloatRows = 2;

template <std::size_t N>
struct Floats {
  float v[N];
  static Floats zero() { return {}; }
  static Floats broadcast(float x) {
    Floats r;
    for (float& lane : r.v)
      lane = x;
    return r;
  }
  static Floats load(const float* p) {
    Floats r;
    std::memcpy(r.v, p, sizeof(r.v));
    return r;
  }
  static Floats load_f16(const std::byte* p) {
    return load_bits(p, [](std::uint16_t bits) { return f16_to_f32(bits); });
  }
  static Floats load_bf16(const std::byte* p) {
    return load_bits(p, [](std::uint16_t bits) { return bf16_to_f32(bits); });
  }
  void store(float* p) const { std::memcpy(p, v, sizeof(v)); }
  static Floats add(const Floats& a, const Floats& b) {
    Floats r;
    for (std::size_t i = 0; i < N; ++i)
      r.v[i] = a.v[i] + b.v[i];
    return r;
  }
  static Floats multiply(const Floats& a, const Floats& b) {
    Floats r;
    for (std::size_t i = 0; i < N; ++i)
      r.v[i] = a.v[i] * b.v[i];
    return r;
  }
  // a * b + c
  static Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) {
    Floats r;
    for (std::size_t i = 0; i < N; ++i)
      r.v[i] = a.v[i] * b.v[i] + c.v[i];
    return r;
  }
  // In halves: lane i and lane i + N / 2 first.
  float add_lanes() const {
    Floats r = *this;
    for (std::size_t half = N / 2; half != 0; half /= 2)
      for (std::size_t i = 0; i < half; ++i)
        r.v[i] += r.v[i + half];
    return r.v[0];
  }

 private:
  template <class Convert>
  static Floats load_bits(const std::byte* p, Convert convert) {
    Floats r;
    for (std::size_t i = 0; i < N; ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, p + 2 * i, sizeof(bits));
      r.v[i] = convert(bits);
    }
    return r;
  }
};

using F32x8 = Floats<8>;
using F32x16 = Floats<16>;

struct I32x8 {
  std::int32_t v[8];
  F32x8 to_f32() const {
    F32x8 r;
    for (std::size_t i = 0; i < 8; ++i)
      r.v[i] = static_cast<float>(v[i]);
    return r;
  }
};

// Some split into lanes of the dot product of 32 weight codes with 32 activation codes.
inline I32x8 dot_block(const std::int8_t* codes, const std::int16_t* row) {
  I32x8 sum{};
  for (std::size_t i = 0; i < 16; ++i)
    sum.v[i / 2] += codes[2 * i] * row[i] + codes[2 * i + 1] * row[16 + i];
  return sum;
}

// Lane j is the sum of the lanes of parts[j].
inline I32x8 join_lanes(const I32x8 (&parts)[8]) {
  I32x8 r{};
  for (std::size_t j = 0; j < 8; ++j)
    for (const std::int32_t lane : parts[j].v)
      r.v[j] += lane;
  return r;
}

struct I16x32 {
  std::int16_t v[32];
  static I16x32 load(const std::int16_t* p) {
    I16x32 r;
    std::memcpy(r.v, p, sizeof(r.v));
    return r;
  }
  // p[0], p[1], p[0], ...
  static I16x32 broadcast_pair(const std::int16_t* p) {
    I16x32 r;
    for (std::size_t i = 0; i < 32; ++i)
      r.v[i] = p[i % 2];
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
  static I32x16 add(const I32x16& a, const I32x16& b) {
    I32x16 r;
    for (std::size_t i = 0; i < 16; ++i)
      r.v[i] = a.v[i] + b.v[i];
    return r;
  }
  F32x16 to_f32() const {
    F32x16 r;
    for (std::size_t i = 0; i < 16; ++i)
      r.v[i] = static_cast<float>(v[i]);
    return r;
  }
};

// A block of 32 codes of 16 weight rows, `stride` apart, as 16 vectors for add_pairs(): vector p
// holds of every row the two codes that meet entries 2p and 2p + 1 of the activation block.
inline void interleave_block(const std::int8_t* codes, std::size_t stride, std::int16_t* out) {
  for (std::size_t o = 0; o < 16; ++o) {
    for (std::size_t i = 0; i < 16; ++i) {
      out[i / 2 * 32 + 2 * o + i % 2] = std::int16_t{codes[o * stride + 2 * i]};
      out[(8 + i / 2) * 32 + 2 * o + i % 2] = std::int16_t{codes[o * stride + 2 * i + 1]};
    }
  }
}

}  // namespace
}  // namespace ds4::cpu
