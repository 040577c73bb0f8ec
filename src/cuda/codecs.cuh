#pragma once
#include "cuda/matrix.h"
#include "cuda/platform.cuh"

namespace ds4::cuda {

// Weights from the planes of a Matrix to f32, one unit at a time: a unit is what one lane loads at
// once.  Every Codec<type> has
//
//   kUnit      numbers of a unit;  kSegment of them at a time are neighbours in the row
//   Raw        a unit in registers
//   load()     unit `unit` of a row from its two planes
//   column()   the column of the first number of segment `segment`
//   decode()   the numbers, the same arithmetic as src/quant, in unit order
//
// Neighbouring lanes take neighbouring units, so loads of a warp are contiguous.
template <ElementType type>
struct Codec;

// The magnitudes of IQ2_XXS, in shared memory while a kernel needs them: 256 rows of 8 bytes.
using Grid = Words2;
inline constexpr int kGridRows = 256;

DS4_DEVICE float signed_byte(std::uint32_t word, int index) {
  return static_cast<float>(static_cast<std::int8_t>((word >> (8 * index)) & 255));
}

template <>
struct Codec<ElementType::kF32> {
  static constexpr int kUnit = 8, kSegment = 8;
  struct Raw {
    Words4 low, high;
  };
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte*,
                             std::uint32_t,
                             std::uint32_t unit) {
    const auto* from = reinterpret_cast<const Words4*>(codes) + std::size_t{unit} * 2;
    return {load_streaming(from), load_streaming(from + 1)};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t, const Grid*, float (&w)[kUnit]) {
    const std::uint32_t words[8] = {r.low.x,  r.low.y,  r.low.z,  r.low.w,
                                    r.high.x, r.high.y, r.high.z, r.high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w[i] = float_of_bits(words[i]);
  }
};

template <>
struct Codec<ElementType::kF16> {
  static constexpr int kUnit = 8, kSegment = 8;
  struct Raw {
    Words4 q;
  };
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte*,
                             std::uint32_t,
                             std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit)};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t, const Grid*, float (&w)[kUnit]) {
    const std::uint32_t words[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w[i] = half_to_float(static_cast<std::uint16_t>(words[i / 2] >> (16 * (i % 2))));
  }
};

template <>
struct Codec<ElementType::kBF16> {
  static constexpr int kUnit = 8, kSegment = 8;
  using Raw = Codec<ElementType::kF16>::Raw;
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte* scales,
                             std::uint32_t columns,
                             std::uint32_t unit) {
    return Codec<ElementType::kF16>::load(codes, scales, columns, unit);
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t, const Grid*, float (&w)[kUnit]) {
    const std::uint32_t words[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w[i] = float_of_bits(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000U);
  }
};

// value = d * q; a unit is half a block.
template <>
struct Codec<ElementType::kQ8_0> {
  static constexpr int kUnit = 16, kSegment = 16;
  struct Raw {
    Words4 q;
    std::uint16_t d;
  };
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte* scales,
                             std::uint32_t,
                             std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit),
            reinterpret_cast<const std::uint16_t*>(scales)[unit / 2]};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t, const Grid*, float (&w)[kUnit]) {
    const float d = half_to_float(r.d);
    const std::uint32_t words[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
#pragma unroll
    for (int i = 0; i < 16; ++i)
      w[i] = d * signed_byte(words[i / 4], i % 4);
  }
};

// value = d * (2 * scale + 1) / 8 * magnitude * sign; a unit is a group of 32.
template <>
struct Codec<ElementType::kIQ2XXS> {
  static constexpr int kUnit = 32, kSegment = 32;
  struct Raw {
    Words2 q;
    std::uint16_t d;
  };
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte* scales,
                             std::uint32_t,
                             std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words2*>(codes) + unit),
            reinterpret_cast<const std::uint16_t*>(scales)[unit / 8]};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t, const Grid* grid, float (&w)[kUnit]) {
    const float scale = half_to_float(r.d) * static_cast<float>(2 * (r.q.y >> 28) + 1) * 0.125F;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const Words2 row = grid[(r.q.x >> (8 * k)) & 255];
      const std::uint32_t index = (r.q.y >> (7 * k)) & 127;
      // The eighth sign makes the number of negative values even.
      const std::uint32_t signs =
          index | ((static_cast<std::uint32_t>(count_bits(index)) & 1U) << 7);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const std::uint32_t byte = ((i < 4 ? row.x : row.y) >> (8 * (i % 4))) & 255;
        const float magnitude = scale * static_cast<float>(byte);
        w[8 * k + i] = float_of_bits(bits_of_float(magnitude) ^ (((signs >> i) & 1U) << 31));
      }
    }
  }
};

// value = e2m1(code) * 2^(e - 127); low nibbles are the first half of the block.
template <>
struct Codec<ElementType::kMXFP4> {
  static constexpr int kUnit = 32, kSegment = 32;
  struct Raw {
    Words4 q;
    std::uint8_t e;
  };
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte* scales,
                             std::uint32_t,
                             std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit),
            reinterpret_cast<const std::uint8_t*>(scales)[unit]};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE float value(std::uint32_t code) {
    const std::uint32_t exponent = (code >> 1) & 3;
    const std::uint32_t mantissa = code & 1;
    const std::uint32_t bits =
        exponent == 0 ? mantissa * 0x3F000000U : ((exponent + 126) << 23) | (mantissa << 22);
    return float_of_bits(bits | ((code & 8) << 28));
  }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t, const Grid*, float (&w)[kUnit]) {
    const float scale =
        float_of_bits(r.e == 0 ? 0x00400000U : static_cast<std::uint32_t>(r.e) << 23);
    const std::uint32_t words[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const std::uint32_t byte = (words[i / 4] >> (8 * (i % 4))) & 255;
      w[i] = value(byte & 15) * scale;
      w[16 + i] = value(byte >> 4) * scale;
    }
  }
};

// value = d * scale * q - dmin * min.  A unit is 16 bytes of codes: 16 low nibbles of one sub-block
// and 16 high ones of the next.
template <>
struct Codec<ElementType::kQ4K> {
  static constexpr int kUnit = 32, kSegment = 16;
  struct Raw {
    Words4 q;
    std::uint32_t d;  // d, then dmin
    std::uint32_t scales[3];
  };
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte* scales,
                             std::uint32_t,
                             std::uint32_t unit) {
    const auto* header = reinterpret_cast<const Words4*>(scales) + unit / 8;
    const Words4 h = *header;
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit), h.x, {h.y, h.z, h.w}};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int segment) {
    const std::uint32_t within = unit % 8;
    return unit / 8 * 256 + within / 2 * 64 + static_cast<std::uint32_t>(segment) * 32 +
           within % 2 * 16;
  }
  static DS4_DEVICE std::uint32_t byte_of(const Raw& r, std::uint32_t index) {
    const std::uint32_t word = index < 4 ? r.scales[0] : index < 8 ? r.scales[1] : r.scales[2];
    return (word >> (8 * (index % 4))) & 255;
  }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t unit, const Grid*, float (&w)[kUnit]) {
    const float d = half_to_float(static_cast<std::uint16_t>(r.d & 0xFFFF));
    const float dmin = half_to_float(static_cast<std::uint16_t>(r.d >> 16));
    const std::uint32_t words[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
#pragma unroll
    for (std::uint32_t half = 0; half < 2; ++half) {
      const std::uint32_t s = unit % 8 / 2 * 2 + half;
      std::uint32_t scale = byte_of(r, s) & 63;
      std::uint32_t min = byte_of(r, s + 4) & 63;
      if (s >= 4) {
        scale = (byte_of(r, s + 4) & 15) | ((byte_of(r, s - 4) >> 6) << 4);
        min = (byte_of(r, s + 4) >> 4) | ((byte_of(r, s) >> 6) << 4);
      }
      const float a = d * static_cast<float>(scale);
      const float b = dmin * static_cast<float>(min);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const std::uint32_t byte = (words[i / 4] >> (8 * (i % 4))) & 255;
        w[16 * half + static_cast<std::uint32_t>(i)] =
            a * static_cast<float>((byte >> (4 * half)) & 15) - b;
      }
    }
  }
};

// value = d * scale * q - dmin * min.  A unit is 8 bytes of codes: 8 columns of each of the four
// sub-blocks that share them.
template <>
struct Codec<ElementType::kQ2K> {
  static constexpr int kUnit = 32, kSegment = 8;
  struct Raw {
    Words2 q;
    Words2 scales;    // of the half block
    std::uint32_t d;  // d, then dmin
  };
  static DS4_DEVICE Raw load(const std::byte* codes,
                             const std::byte* scales,
                             std::uint32_t columns,
                             std::uint32_t unit) {
    const std::uint32_t block = unit / 8;
    const auto* words = reinterpret_cast<const std::uint32_t*>(scales);
    const std::uint32_t first = block * 4 + unit % 8 / 4 * 2;
    return {load_streaming(reinterpret_cast<const Words2*>(codes) + unit),
            {words[first], words[first + 1]},
            words[columns / 256 * 4 + block]};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int segment) {
    const std::uint32_t within = unit % 8;
    return unit / 8 * 256 + within / 4 * 128 + static_cast<std::uint32_t>(segment) * 32 +
           within % 4 * 8;
  }
  static DS4_DEVICE void decode(const Raw& r, std::uint32_t unit, const Grid*, float (&w)[kUnit]) {
    const float d = half_to_float(static_cast<std::uint16_t>(r.d & 0xFFFF));
    const float dmin = half_to_float(static_cast<std::uint16_t>(r.d >> 16));
    // Sub-block 2j + h of the half block, h: whether the columns are in the upper 16.
    const std::uint32_t h = unit % 4 / 2;
#pragma unroll
    for (std::uint32_t j = 0; j < 4; ++j) {
      const std::uint32_t byte = ((j < 2 ? r.scales.x : r.scales.y) >> (8 * (j % 2 * 2 + h))) & 255;
      const float a = d * static_cast<float>(byte & 15);
      const float b = dmin * static_cast<float>(byte >> 4);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const std::uint32_t q =
            ((i < 4 ? r.q.x : r.q.y) >> (8 * (i % 4) + 2 * static_cast<int>(j))) & 3;
        w[8 * j + static_cast<std::uint32_t>(i)] = a * static_cast<float>(q) - b;
      }
    }
  }
};

DS4_DEVICE const std::byte* row_codes(const Matrix& m, std::size_t slab, std::size_t row) {
  return m.codes + (slab * m.rows + row) * m.codes_bytes;
}
DS4_DEVICE const std::byte* row_scales(const Matrix& m, std::size_t slab, std::size_t row) {
  return m.scales + (slab * m.rows + row) * m.scales_bytes;
}

// Calls body.template operator()<Codec>() for the type of a matrix.
template <class Body>
DS4_DEVICE void with_codec(ElementType type, const Body& body) {
  switch (type) {
    case ElementType::kF32:
      return body(Codec<ElementType::kF32>{});
    case ElementType::kF16:
      return body(Codec<ElementType::kF16>{});
    case ElementType::kBF16:
      return body(Codec<ElementType::kBF16>{});
    case ElementType::kQ8_0:
      return body(Codec<ElementType::kQ8_0>{});
    case ElementType::kIQ2XXS:
      return body(Codec<ElementType::kIQ2XXS>{});
    case ElementType::kMXFP4:
      return body(Codec<ElementType::kMXFP4>{});
    case ElementType::kQ4K:
      return body(Codec<ElementType::kQ4K>{});
    case ElementType::kQ2K:
      return body(Codec<ElementType::kQ2K>{});
    case ElementType::kI32:
      return;
  }
}

}  // namespace ds4::cuda
