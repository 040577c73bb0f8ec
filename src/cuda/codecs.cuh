#pragma once
#include "cuda/matrix.h"
#include "cuda/platform.cuh"

namespace ds4::cuda {

// Weights from the planes of a Matrix, one unit at a time: a unit is what one lane loads at once,
// in segments of 8 neighbouring columns.  Every Codec<type> has
//
//   kType           the type
//   kQuantised      whether it is one of the block formats
//   kSegments       segments of a unit;  kUnit = 8 * kSegments numbers
//   kBlockUnits     units of a lane in a block of 256 columns
//   Unit            a unit in registers
//   load()          unit `unit` of a row from its two planes
//   column()        the column of the first number of segment `segment`
//   decode()        the 8 numbers of a segment, the same arithmetic as src/quant
//
// Quantised formats share one order of units, that of the integer matrix instruction: four units,
// one for each of the lanes 4 * g .. 4 * g + 3 that share a weight row, make a superblock of
// 32 * kSegments columns, and lane q has columns 8 * q .. 8 * q + 7 of every 32.  They also have
//
//   finish()        what the four lanes of a row have to tell each other; every lane of the warp
//                   calls it once after load()
//   integers()      the segment as 8 small integers:  value = scale * integer - min
//   scale(), min_scale(), min_code()     min = min_scale * min_code; the codes are below 64
//   min_bytes()     min_code() four times
//   kBlockScale     whether scale() is one for all 256 columns of a block
//   kCodeScale      whether scale() is block_factor(), one for all 256 columns, times scale_code(),
//                   an integer below 64
//   kHasMins
//
// Neighbouring lanes take neighbouring units, so loads of a warp are contiguous.
template <ElementType type>
struct Codec;

// IQ2_XXS's codebook as a lane sees it: magnitudes as selectors of bytes, four bits a number: 0, 1,
// 2 for 8, 25, 43, to which 4 is added for the negative ones.
inline constexpr int kGridRows = 256;
inline constexpr std::uint32_t kGridMagnitudes = 0x002B1908U;
struct Codebook {
  const std::byte* rows;
  std::uint32_t row_bytes;
  std::uint32_t own;       // where the lane's copy is in a row
  std::uint32_t positive;  // the magnitudes as bytes 0, 1 and 2

  // The row that byte `index` of `indices` names.
  DS4_DEVICE std::uint32_t at(std::uint32_t indices, int index) const {
    return *reinterpret_cast<const std::uint32_t*>(
        rows + dot_bytes(indices, row_bytes << (8 * index), own));
  }
};

// Where it lies in shared memory.  With several copies fewer lanes meet in a bank.
template <std::uint32_t kCopies>
struct CodebookMemory {
  std::uint32_t rows[kGridRows][kCopies];

  DS4_DEVICE Codebook view() const {
    static_assert(sizeof rows[0] <= 128);
    return {reinterpret_cast<const std::byte*>(rows), sizeof rows[0], threadIdx.x % kCopies * 4,
            kept_constant(kGridMagnitudes)};
  }
};

// By the whole block, from the magnitudes as [kGridRows][8] bytes; complete after a block_sync().
template <std::uint32_t kCopies>
DS4_DEVICE void load_codebook(const std::byte* magnitudes, CodebookMemory<kCopies>& shared) {
  // 8, 25 and 43 differ in their upper four bits: 0, 1, 2.
  const auto four = [](std::uint32_t bytes) {
    const std::uint32_t upper = (bytes >> 4) & 0x0F0F0F0FU;
    const std::uint32_t pairs = upper | (upper >> 4);
    return (pairs & 0xFF) | ((pairs >> 8) & 0xFF00);
  };
  const auto* from = reinterpret_cast<const Words2*>(magnitudes);
  for (std::uint32_t i = threadIdx.x; i < kGridRows; i += blockDim.x) {
    const std::uint32_t selectors = four(from[i].x) | (four(from[i].y) << 16);
    // Lanes begin with different copies: different banks.
    for (std::uint32_t k = 0; k < kCopies; ++k)
      shared.rows[i][(i + k) % kCopies] = selectors;
  }
}

DS4_DEVICE float signed_byte(std::uint32_t word, int index) {
  return static_cast<float>(static_cast<std::int8_t>((word >> (8 * index)) & 255));
}

DS4_DEVICE float half_of_pair(std::uint32_t pair, int index) {
  return half_to_float(static_cast<std::uint16_t>((pair >> (16 * index)) & 0xFFFF));
}

template <>
struct Codec<ElementType::kF32> {
  static constexpr ElementType kType = ElementType::kF32;
  static constexpr int kUnit = 8, kSegments = 1, kBlockUnits = 8;
  static constexpr bool kQuantised = false;
  struct Unit {
    Words4 low, high;
  };
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte*,
                              std::uint32_t,
                              std::uint32_t unit) {
    const auto* from = reinterpret_cast<const Words4*>(codes) + std::size_t{unit} * 2;
    return {load_streaming(from), load_streaming(from + 1)};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Unit& r, int, const Codebook*, float (&w)[8]) {
    const std::uint32_t words[8] = {r.low.x,  r.low.y,  r.low.z,  r.low.w,
                                    r.high.x, r.high.y, r.high.z, r.high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w[i] = float_of_bits(words[i]);
  }
};

template <>
struct Codec<ElementType::kF16> {
  static constexpr ElementType kType = ElementType::kF16;
  static constexpr int kUnit = 8, kSegments = 1, kBlockUnits = 8;
  static constexpr bool kQuantised = false;
  struct Unit {
    Words4 q;
  };
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte*,
                              std::uint32_t,
                              std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit)};
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Unit& r, int, const Codebook*, float (&w)[8]) {
    const std::uint32_t words[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w[i] = half_to_float(static_cast<std::uint16_t>(words[i / 2] >> (16 * (i % 2))));
  }
};

template <>
struct Codec<ElementType::kBF16> {
  static constexpr ElementType kType = ElementType::kBF16;
  static constexpr int kUnit = 8, kSegments = 1, kBlockUnits = 8;
  static constexpr bool kQuantised = false;
  using Unit = Codec<ElementType::kF16>::Unit;
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte* scales,
                              std::uint32_t columns,
                              std::uint32_t unit) {
    return Codec<ElementType::kF16>::load(codes, scales, columns, unit);
  }
  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int) { return unit * kUnit; }
  static DS4_DEVICE void decode(const Unit& r, int, const Codebook*, float (&w)[8]) {
    const std::uint32_t words[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w[i] = float_of_bits(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000U);
  }
};

// What the quantised formats have in common.
template <ElementType type, int kSegmentCount>
struct QuantisedCodec {
  using Self = Codec<type>;
  static constexpr ElementType kType = type;
  static constexpr bool kQuantised = true;
  static constexpr int kSegments = kSegmentCount;
  static constexpr int kUnit = 8 * kSegments;
  static constexpr int kBlockUnits = 8 / kSegments;

  static DS4_DEVICE std::uint32_t column(std::uint32_t unit, int segment) {
    return unit / 4 * (32 * kSegments) + static_cast<std::uint32_t>(segment) * 32 + unit % 4 * 8;
  }
  template <class Unit>
  static DS4_DEVICE void decode(const Unit& u, int segment, const Codebook* book, float (&w)[8]) {
    std::uint32_t words[2];
    Self::integers(u, segment, book, words);
    const float scale = Self::scale(u, segment);
    float min = 0;
    if constexpr (Self::kHasMins)
      min = Self::min_scale(u) * static_cast<float>(Self::min_code(u, segment));
#pragma unroll
    for (int i = 0; i < 8; ++i)
      w[i] = scale * signed_byte(words[i / 4], i % 4) - min;
  }
};

// value = d * q
template <>
struct Codec<ElementType::kQ8_0> : QuantisedCodec<ElementType::kQ8_0, 2> {
  static constexpr bool kBlockScale = false, kCodeScale = false, kHasMins = false;
  struct Unit {
    Words4 q;
    std::uint32_t d;  // of the two blocks
  };
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte* scales,
                              std::uint32_t,
                              std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit),
            reinterpret_cast<const std::uint32_t*>(scales)[unit / 4]};
  }
  static DS4_DEVICE void finish(Unit&) {}
  static DS4_DEVICE void integers(const Unit& u, int s, const Codebook*, std::uint32_t (&w)[2]) {
    w[0] = s == 0 ? u.q.x : u.q.z;
    w[1] = s == 0 ? u.q.y : u.q.w;
  }
  static DS4_DEVICE float scale(const Unit& u, int s) { return half_of_pair(u.d, s); }
};

// value = d * (2 * scale + 1) / 8 * magnitude * sign.  A unit has the eight codebook indices, eight
// times seven signs and two of the block's eight scales.  Signs stand where selectors want them:
// nibble k of z has the k-th sign of segments 0 to 3, one bit each, w those of segments 4 to 7, and
// each the exclusive or of itself and those before it; the last nibbles hold the scales.  Of eight
// signs an even number is set, so finish() gets all from two neighbours each.
template <>
struct Codec<ElementType::kIQ2XXS> : QuantisedCodec<ElementType::kIQ2XXS, 8> {
  static constexpr bool kBlockScale = false, kCodeScale = true, kHasMins = false;
  struct Unit {
    Words4 q;
    std::uint32_t even, odd;  // after finish(): the scales of segments 0, 2, 4, 6 and 1, 3, 5, 7
    std::uint16_t d;
  };
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte* scales,
                              std::uint32_t,
                              std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit), 0, 0,
            reinterpret_cast<const std::uint16_t*>(scales)[unit / 4]};
  }
  static DS4_DEVICE void finish(Unit& u) {
    std::uint32_t all = own_scales(u) << (threadIdx.x % 4 * 8);
    all |= shuffle_xor(all, 1);
    complete(u, all | shuffle_xor(all, 2));
  }
  // The two scales of lane q, bits 8 * q of all eight.
  static DS4_DEVICE std::uint32_t own_scales(const Unit& u) {
    return (u.q.z >> 28) | (u.q.w >> 28 << 4);
  }
  static DS4_DEVICE void complete(Unit& u, std::uint32_t all_scales) {
    u.even = all_scales & 0x0F0F0F0FU;
    u.odd = (all_scales >> 4) & 0x0F0F0F0FU;
    u.q.z = all_signs(u.q.z);
    u.q.w = all_signs(u.q.w);
  }
  // The segment's eight selectors.
  static DS4_DEVICE std::uint32_t selectors(const Unit& u, int s, const Codebook* book) {
    const std::uint32_t signs = s < 4 ? u.q.z : u.q.w;
    // Bit s % 4 of every nibble to bit 2.
    const int shift = 2 - (s & 3);
    const std::uint32_t turned = shift < 0 ? signs >> 1 : signs << shift;
    return book->at(s < 4 ? u.q.x : u.q.y, s & 3) | (turned & 0x44444444U);
  }
  static DS4_DEVICE void integers(const Unit& u,
                                  int s,
                                  const Codebook* book,
                                  std::uint32_t (&w)[2]) {
    const std::uint32_t four = selectors(u, s, book);
    w[0] = pick_bytes(book->positive, kNegative, four);
    w[1] = pick_bytes(book->positive, kNegative, four >> 16);
  }
  static DS4_DEVICE float scale(const Unit& u, int s) {
    return block_factor(u) * static_cast<float>(scale_code(u, s));
  }
  static DS4_DEVICE float block_factor(const Unit& u) { return half_to_float(u.d) * 0.125F; }
  static DS4_DEVICE std::uint32_t scale_code(const Unit& u, int s) {
    return dot_bytes(s % 2 == 0 ? u.even : u.odd, 2U << (s / 2 * 8), 1);
  }

 private:
  static constexpr std::uint32_t kNegative = 0x00D5E7F8U;

  static DS4_DEVICE std::uint32_t all_signs(std::uint32_t stored) {
    return (stored & 0x0FFFFFFFU) ^ (stored << 4);
  }
};

// value = e2m1(code) * 2^(e - 127); the integers are twice the E2M1 values.
template <>
struct Codec<ElementType::kMXFP4> : QuantisedCodec<ElementType::kMXFP4, 2> {
  static constexpr bool kBlockScale = false, kCodeScale = false, kHasMins = false;
  struct Unit {
    Words2 q;         // a word a segment, four bits a column
    std::uint16_t e;  // of the two blocks
  };
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte* scales,
                              std::uint32_t,
                              std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words2*>(codes) + unit),
            reinterpret_cast<const std::uint16_t*>(scales)[unit / 4]};
  }
  static DS4_DEVICE void finish(Unit&) {}
  static DS4_DEVICE void integers(const Unit& u, int s, const Codebook*, std::uint32_t (&w)[2]) {
    const std::uint32_t codes = s == 0 ? u.q.x : u.q.y;
    w[0] = four(codes & 0xFFFF);
    w[1] = four(codes >> 16);
  }
  static DS4_DEVICE float scale(const Unit& u, int s) {
    const std::uint32_t e = (u.e >> (8 * s)) & 255U;
    // Half of 2^(e - 127), the smallest of which are subnormal.
    return float_of_bits(e > 1 ? (e - 1) << 23 : 0x00200000U << e);
  }

 private:
  static DS4_DEVICE std::uint32_t four(std::uint32_t codes) {
    const std::uint32_t magnitudes = pick_bytes(0x03020100U, 0x0C080604U, codes & 0x7777U);
    const std::uint32_t opposites = pick_bytes(0xFDFEFF00U, 0xF4F8FAFCU, codes & 0x7777U);
    // The code's sign bit to the top of its byte, then over the byte.
    const std::uint32_t tops = ((codes & 0x8U) << 4) | ((codes & 0x80U) << 8) |
                               ((codes & 0x800U) << 12) | ((codes & 0x8000U) << 16);
    const std::uint32_t mask = pick_bytes(tops, tops, 0xBA98);
    return (magnitudes & ~mask) | (opposites & mask);
  }
};

// value = d * scale * q - dmin * min
template <>
struct Codec<ElementType::kQ4K> : QuantisedCodec<ElementType::kQ4K, 4> {
  static constexpr bool kBlockScale = false, kCodeScale = true, kHasMins = true;
  struct Unit {
    Words4 q;             // two words for each 64 columns: low nibbles the first 32
    Words4 header;        // d and dmin, then 12 bytes of scales and mins
    std::uint32_t first;  // the unit's first sub-block of 32 columns
  };
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte* scales,
                              std::uint32_t,
                              std::uint32_t unit) {
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit),
            reinterpret_cast<const Words4*>(scales)[unit / 8], unit / 4 % 2 * 4};
  }
  static DS4_DEVICE void finish(Unit&) {}
  static DS4_DEVICE void integers(const Unit& u, int s, const Codebook*, std::uint32_t (&w)[2]) {
    const int shift = s % 2 * 4;
    w[0] = ((s < 2 ? u.q.x : u.q.z) >> shift) & 0x0F0F0F0FU;
    w[1] = ((s < 2 ? u.q.y : u.q.w) >> shift) & 0x0F0F0F0FU;
  }
  static DS4_DEVICE std::uint32_t scale_code(const Unit& u, int s) {
    const std::uint32_t low = byte_of(u.header.y, s);
    return u.first == 0 ? low & 63 : (byte_of(u.header.w, s) & 15) | ((low >> 6) << 4);
  }
  static DS4_DEVICE float block_factor(const Unit& u) { return half_of_pair(u.header.x, 0); }
  static DS4_DEVICE float scale(const Unit& u, int s) {
    return block_factor(u) * static_cast<float>(scale_code(u, s));
  }
  static DS4_DEVICE float min_scale(const Unit& u) { return half_of_pair(u.header.x, 1); }
  static DS4_DEVICE std::uint32_t min_code(const Unit& u, int s) {
    const std::uint32_t low = byte_of(u.header.z, s);
    return u.first == 0 ? low & 63 : (byte_of(u.header.w, s) >> 4) | ((low >> 6) << 4);
  }
  static DS4_DEVICE std::uint32_t min_bytes(const Unit& u, int s) {
    return min_code(u, s) * 0x01010101U;
  }

 private:
  static DS4_DEVICE std::uint32_t byte_of(std::uint32_t word, int index) {
    return (word >> (8 * index)) & 255;
  }
};

// value = d * scale * q - dmin * min; the integers are scale * q, at most 45.
template <>
struct Codec<ElementType::kQ2K> : QuantisedCodec<ElementType::kQ2K, 8> {
  static constexpr bool kBlockScale = true, kCodeScale = false, kHasMins = true;
  struct Unit {
    Words4 q;         // two words for each 128 columns, two bits a column and 32 columns
    Words2 scales;    // of the sub-blocks that the unit's columns lie in, one byte a segment
    Words2 mins;      // after finish(); scales and mins are bytes then
    std::uint32_t d;  // d, then dmin
  };
  static DS4_DEVICE Unit load(const std::byte* codes,
                              const std::byte* scales,
                              std::uint32_t columns,
                              std::uint32_t unit) {
    const std::uint32_t block = unit / 4;
    const auto* words = reinterpret_cast<const std::uint32_t*>(scales);
    const std::uint32_t first = block * 4 + unit % 4 / 2 * 2;
    return {load_streaming(reinterpret_cast<const Words4*>(codes) + unit),
            {words[first], words[first + 1]},
            {0, 0},
            words[columns / 256 * 4 + block]};
  }
  static DS4_DEVICE void finish(Unit& u) {
    u.mins = {(u.scales.x >> 4) & 0x0F0F0F0FU, (u.scales.y >> 4) & 0x0F0F0F0FU};
    u.scales = {u.scales.x & 0x0F0F0F0FU, u.scales.y & 0x0F0F0F0FU};
  }
  static DS4_DEVICE void integers(const Unit& u, int s, const Codebook*, std::uint32_t (&w)[2]) {
    const std::uint32_t scale = byte_of(u.scales, s);
    const int shift = s % 4 * 2;
    w[0] = (((s < 4 ? u.q.x : u.q.z) >> shift) & 0x03030303U) * scale;
    w[1] = (((s < 4 ? u.q.y : u.q.w) >> shift) & 0x03030303U) * scale;
  }
  static DS4_DEVICE float scale(const Unit& u, int) { return half_of_pair(u.d, 0); }
  static DS4_DEVICE float min_scale(const Unit& u) { return half_of_pair(u.d, 1); }
  static DS4_DEVICE std::uint32_t min_code(const Unit& u, int s) { return byte_of(u.mins, s); }
  static DS4_DEVICE std::uint32_t min_bytes(const Unit& u, int s) {
    return pick_bytes(s < 4 ? u.mins.x : u.mins.y, 0, 0x1111U * (s & 3));
  }

 private:
  static DS4_DEVICE std::uint32_t byte_of(const Words2& bytes, int s) {
    return dot_bytes(s < 4 ? bytes.x : bytes.y, 1U << ((s & 3) * 8), 0);
  }
};

DS4_DEVICE const std::byte* row_codes(const Matrix& m, std::size_t slab, std::size_t row) {
  return m.codes + (slab * m.rows + row) * m.codes_bytes;
}
DS4_DEVICE const std::byte* row_scales(const Matrix& m, std::size_t slab, std::size_t row) {
  return m.scales + (slab * m.rows + row) * m.scales_bytes;
}

// Calls body with the Codec of a plain type.
template <class Body>
DS4_DEVICE void with_plain_codec(ElementType type, const Body& body) {
  if (type == ElementType::kF32) return body(Codec<ElementType::kF32>{});
  if (type == ElementType::kF16) return body(Codec<ElementType::kF16>{});
  body(Codec<ElementType::kBF16>{});
}

// Calls body with the Codec of any type.
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
