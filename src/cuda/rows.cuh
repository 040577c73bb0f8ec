#pragma once
#include "cuda/platform.cuh"
#include "cuda/step.h"

namespace ds4::cuda {

// Rounding and storage of attention rows and index keys on the card; the scalar truth is
// backend/row_codec.

// Exponent of the smallest power of two that brings `amax` within a format's largest value, of
// which `reciprocal` is the f32 reciprocal; from the bits, as a logarithm's rounding could double
// it.
DS4_DEVICE int scale_exponent(float amax, float reciprocal) {
  const std::uint32_t bits = bits_of_float(amax * reciprocal);
  return static_cast<int>((bits >> 23) & 255) - 127 + ((bits & 0x7FFFFF) != 0 ? 1 : 0);
}

// 2^exponent for exponents of normal numbers.
DS4_DEVICE float power_of_two(int exponent) {
  return float_of_bits(static_cast<std::uint32_t>(exponent + 127) << 23);
}

DS4_DEVICE std::uint32_t e8m0_code(int exponent) {
  const int code = exponent + 127;
  return static_cast<std::uint32_t>(code < 0 ? 0 : code > 254 ? 254 : code);
}

// Nearest E4M3FN code, ties to the even mantissa, clamped to +-448.
DS4_DEVICE std::uint32_t e4m3_code(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t sign = (bits >> 24) & 0x80;
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude >= 0x43E00000) return sign | 0x7E;
  if (magnitude < 0x3C800000)
    return sign | (bits_of_float(float_of_bits(magnitude) + 16384.0F) - 0x46800000);
  const std::uint32_t rounded = magnitude + 0x7FFFF + ((magnitude >> 20) & 1);
  return sign | ((rounded >> 20) - (120U << 3));
}

// Nearest E2M1 code, ties to the even code, clamped to +-6.
DS4_DEVICE std::uint32_t e2m1_code(float value) {
  const std::uint32_t sign = value < 0 ? 8 : 0;
  const float a = fabsf(value);
  std::uint32_t code = 7;
  if (a <= 0.25F) {
    code = 0;
  } else if (a < 0.75F) {
    code = 1;
  } else if (a <= 1.25F) {
    code = 2;
  } else if (a < 1.75F) {
    code = 3;
  } else if (a <= 2.5F) {
    code = 4;
  } else if (a < 3.5F) {
    code = 5;
  } else if (a <= 5.0F) {
    code = 6;
  }
  return sign | code;
}

DS4_DEVICE float e2m1_value(std::uint32_t code) {
  const std::uint32_t exponent = (code >> 1) & 3;
  const std::uint32_t bits =
      exponent == 0 ? (code & 1) * 0x3F000000U : ((exponent + 126) << 23) | ((code & 1) << 22);
  return float_of_bits(bits | ((code & 8) << 28));
}

// Turns the pair (a, b) by `position` * `frequency`, an f32 product, as the model was trained.
DS4_DEVICE void rotate(
    float* a, float* b, std::uint32_t position, float frequency, float direction) {
  float sine = 0;
  float cosine = 0;
  sine_cosine(static_cast<float>(position) * frequency, &sine, &cosine);
  sine *= direction;
  const float x = *a;
  const float y = *b;
  *a = x * cosine - y * sine;
  *b = x * sine + y * cosine;
}

// Four values per lane of a 128-value vector through the Walsh-Hadamard transform, scaled by
// 1 / sqrt(128).
DS4_DEVICE void hadamard(float (&v)[4]) {
  const float a0 = v[0] + v[1];
  const float a1 = v[0] - v[1];
  const float a2 = v[2] + v[3];
  const float a3 = v[2] - v[3];
  v[0] = a0 + a2;
  v[1] = a1 + a3;
  v[2] = a0 - a2;
  v[3] = a1 - a3;
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int mask = 1; mask < 32; mask *= 2)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other = shuffle_xor(v[i], mask);
      v[i] = (lane & mask) == 0 ? v[i] + other : other - v[i];
    }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    v[i] *= 0.08838834764831845F;
}

// The E2M1 codes (16 bits) of a lane's four values, and the exponent of its block's scale: blocks
// of 32 values are 8 lanes.
DS4_DEVICE std::uint32_t key_codes(const float (&v)[4], int* exponent) {
  float amax = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2)
    amax = fmaxf(amax, shuffle_xor(amax, mask));
  *exponent = scale_exponent(fmaxf(amax, 7.052966104933725e-38F), 1.0F / 6.0F);
  const float inverse = ldexpf(1.0F, -*exponent);
  std::uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    codes |= e2m1_code(v[i] * inverse) << (4 * i);
  return codes;
}

}  // namespace ds4::cuda
