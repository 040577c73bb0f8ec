#pragma once
#include "cuda/codecs.cuh"

namespace ds4::cuda {

// Segments of quantised rows as f16, for the tensor cores: eight numbers in four pairs, each pair
// one rounding of an exact product.  Bytes become f16 by setting them under the exponent of 1024:
// 0x6400 | b is 1024 + b, from which 1024 is subtracted exactly.  Factors that keep an integer
// below 2048 multiply it exactly first, then d rounds once (formats with mins: the min rounds too).
//
//   kFactor     what sums of products with these numbers are still to be multiplied by
//   decode()    segment `s` of a unit; `s` need not be known beforehand
template <ElementType type>
struct Halves;

// Magnitudes and signs of IQ2_XXS as selectors into the eight bytes 128 +- {8, 25, 43}.
inline constexpr std::uint32_t kPositives = 0x00AB9988U;
inline constexpr std::uint32_t kNegatives = 0x00556778U;

// -1024 and -1152 twice.
inline constexpr std::uint32_t kMinus1024 = 0xE400E400U;
inline constexpr std::uint32_t kMinus1152 = 0xE480E480U;

// 1024 + b of the four bytes of `bytes`.
DS4_DEVICE void raise_bytes(std::uint32_t bytes, std::uint32_t* low, std::uint32_t* high) {
  *low = pick_bytes(bytes, 0x64646464U, 0x4140);
  *high = pick_bytes(bytes, 0x64646464U, 0x4342);
}

// `code`, below 1024, twice.
DS4_DEVICE std::uint32_t half2_of_code(std::uint32_t code) {
  return add_half2(0x64006400U | (code * 0x10001U), kMinus1024);
}

// The lower or upper half of `pair` twice.
DS4_DEVICE std::uint32_t both_halves(std::uint32_t pair, int index) {
  return pick_bytes(pair, 0, index == 0 ? 0x1010 : 0x3232);
}

template <>
struct Halves<ElementType::kF32> {
  static constexpr float kFactor = 1.0F;
  static DS4_DEVICE void decode(const Codec<ElementType::kF32>::Unit& u,
                                int,
                                const Codebook*,
                                std::uint32_t (&h)[4]) {
    const auto pair = [](std::uint32_t a, std::uint32_t b) {
      return pack_half2(float_of_bits(a), float_of_bits(b));
    };
    h[0] = pair(u.low.x, u.low.y);
    h[1] = pair(u.low.z, u.low.w);
    h[2] = pair(u.high.x, u.high.y);
    h[3] = pair(u.high.z, u.high.w);
  }
};

template <>
struct Halves<ElementType::kF16> {
  static constexpr float kFactor = 1.0F;
  static DS4_DEVICE void decode(const Codec<ElementType::kF16>::Unit& u,
                                int,
                                const Codebook*,
                                std::uint32_t (&h)[4]) {
    h[0] = u.q.x;
    h[1] = u.q.y;
    h[2] = u.q.z;
    h[3] = u.q.w;
  }
};

template <>
struct Halves<ElementType::kBF16> {
  static constexpr float kFactor = 1.0F;
  static DS4_DEVICE void decode(const Codec<ElementType::kBF16>::Unit& u,
                                int,
                                const Codebook*,
                                std::uint32_t (&h)[4]) {
    const std::uint32_t words[4] = {u.q.x, u.q.y, u.q.z, u.q.w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      h[i] = pack_half2(float_of_bits(words[i] << 16), float_of_bits(words[i] & 0xFFFF0000U));
  }
};

template <>
struct Halves<ElementType::kQ8_0> {
  using C = Codec<ElementType::kQ8_0>;
  static constexpr float kFactor = 1.0F;
  static DS4_DEVICE void decode(const C::Unit& u, int s, const Codebook*, std::uint32_t (&h)[4]) {
    std::uint32_t w[2];
    C::integers(u, s, nullptr, w);
    raise_bytes(w[0] ^ 0x80808080U, &h[0], &h[1]);
    raise_bytes(w[1] ^ 0x80808080U, &h[2], &h[3]);
    const std::uint32_t d = both_halves(u.d, s);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      h[i] = multiply_half2(add_half2(h[i], kMinus1152), d);
  }
};

template <>
struct Halves<ElementType::kIQ2XXS> {
  using C = Codec<ElementType::kIQ2XXS>;
  static constexpr float kFactor = 0.125F;
  static DS4_DEVICE void decode(const C::Unit& u,
                                int s,
                                const Codebook* book,
                                std::uint32_t (&h)[4]) {
    const std::uint32_t selectors = C::selectors(u, s, book);
    raise_bytes(pick_bytes(kPositives, kNegatives, selectors), &h[0], &h[1]);
    raise_bytes(pick_bytes(kPositives, kNegatives, selectors >> 16), &h[2], &h[3]);
    // magnitude * (2 * scale + 1) <= 43 * 31
    const std::uint32_t scale = half2_of_code(C::scale_code(u, s));
    const std::uint32_t offset = multiply_half2(scale, kMinus1152);
    const std::uint32_t d = both_halves(u.d, 0);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      h[i] = multiply_half2(fma_half2(h[i], scale, offset), d);
  }
};

template <>
struct Halves<ElementType::kMXFP4> {
  using C = Codec<ElementType::kMXFP4>;
  static constexpr float kFactor = 1.0F;
  static DS4_DEVICE void decode(const C::Unit& u, int s, const Codebook*, std::uint32_t (&h)[4]) {
    std::uint32_t w[2];
    C::integers(u, s, nullptr, w);
    raise_bytes(w[0] ^ 0x80808080U, &h[0], &h[1]);
    raise_bytes(w[1] ^ 0x80808080U, &h[2], &h[3]);
    const float scale = C::scale(u, s);
    const std::uint32_t d = pack_half2(scale, scale);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      h[i] = multiply_half2(add_half2(h[i], kMinus1152), d);
  }
};

template <>
struct Halves<ElementType::kQ4K> {
  using C = Codec<ElementType::kQ4K>;
  static constexpr float kFactor = 1.0F;
  static DS4_DEVICE void decode(const C::Unit& u, int s, const Codebook*, std::uint32_t (&h)[4]) {
    std::uint32_t w[2];
    C::integers(u, s, nullptr, w);
    raise_bytes(w[0], &h[0], &h[1]);
    raise_bytes(w[1], &h[2], &h[3]);
    const std::uint32_t scale = half2_of_code(C::scale_code(u, s));  // q * scale <= 15 * 63
    const std::uint32_t offset = multiply_half2(scale, kMinus1024);
    const std::uint32_t d = both_halves(u.header.x, 0);
    const std::uint32_t min =
        multiply_half2(half2_of_code(C::min_code(u, s)), both_halves(u.header.x, 1)) ^ 0x80008000U;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      h[i] = fma_half2(fma_half2(h[i], scale, offset), d, min);
  }
};

template <>
struct Halves<ElementType::kQ2K> {
  using C = Codec<ElementType::kQ2K>;
  static constexpr float kFactor = 1.0F;
  static DS4_DEVICE void decode(const C::Unit& u, int s, const Codebook*, std::uint32_t (&h)[4]) {
    std::uint32_t w[2];
    C::integers(u, s, nullptr, w);
    raise_bytes(w[0], &h[0], &h[1]);
    raise_bytes(w[1], &h[2], &h[3]);
    const std::uint32_t d = both_halves(u.d, 0);
    const std::uint32_t min =
        multiply_half2(half2_of_code(C::min_code(u, s)), both_halves(u.d, 1)) ^ 0x80008000U;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      h[i] = fma_half2(add_half2(h[i], kMinus1024), d, min);
  }
};

}  // namespace ds4::cuda
