#include "convert/random_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/iq2_xxs.h"
#include "quant/iq2_xxs_codebook.h"
#include "quant/mxfp4.h"
#include "quant/q2_k.h"
#include "quant/q4_k.h"
#include "quant/q8_0.h"
#include "tensor/float16.h"

namespace ds4::convert {

namespace {

using quant::IQ2XXS;
using quant::MXFP4;
using quant::Q2K;
using quant::Q4K;
using quant::Q8_0;

std::uint64_t rotate_left(std::uint64_t value, int count) {
  return (value << count) | (value >> (64 - count));
}

void fill_bytes(Random& random, std::span<std::byte> bytes) {
  while (bytes.size() >= sizeof(std::uint64_t)) {
    const std::uint64_t word = random.next();
    std::memcpy(bytes.data(), &word, sizeof word);
    bytes = bytes.subspan(sizeof word);
  }
  const std::uint64_t word = random.next();
  if (!bytes.empty()) std::memcpy(bytes.data(), &word, bytes.size());
}

// Deviation of a code that is uniform over 0 .. codes - 1.
double uniform_deviation(double codes) {
  return std::sqrt((codes * codes - 1) / 12);
}

// Each set_scales() gives a block of random codes the scales that make its values' deviation what
// `unit` asks: `unit` is f16 bits of the deviation divided by unit_deviation().

double unit_deviation(ElementType type) {
  switch (type) {
    case ElementType::kQ8_0:
      return uniform_deviation(256);
    case ElementType::kQ2K:  // scale and min of 8
      return 8 * uniform_deviation(4);
    case ElementType::kQ4K:  // scale and min of 32
      return 32 * uniform_deviation(16);
    case ElementType::kIQ2XXS: {
      double energy = 0;
      for (const auto& row : quant::kIq2XxsGrid)
        for (const std::uint8_t magnitude : row)
          energy += static_cast<double>(magnitude * magnitude);
      // Group scales are uniform over 6 .. 9: (2 * scale + 1) / 8 is near 2.
      return 2 * std::sqrt(energy / (8.0 * quant::kIq2XxsGrid.size()));
    }
    case ElementType::kMXFP4: {
      double energy = 0;
      for (std::uint8_t code = 0; code < 8; ++code)
        energy += double{e2m1_to_f32(code)} * double{e2m1_to_f32(code)};
      return std::sqrt(energy / 8);
    }
    case ElementType::kF32:
    case ElementType::kF16:
    case ElementType::kBF16:
    case ElementType::kI32:
      return 1;
  }
  return 1;
}

void set_scales(Q8_0::Block& block, float unit) {
  block.d = f32_to_f16(unit);
}

// A min of 1.5 steps and of 7.5 steps centres two-bit and four-bit codes.
void set_scales(Q2K::Block& block, float unit) {
  block.d = f32_to_f16(unit);
  block.dmin = f32_to_f16(unit * 1.5F);
  for (std::uint8_t& scale : block.scales) {
    const unsigned step = 6 + (scale & 3U);
    scale = static_cast<std::uint8_t>(step | (step << 4));
  }
}

void set_scales(Q4K::Block& block, float unit) {
  block.d = f32_to_f16(unit);
  block.dmin = f32_to_f16(unit * 7.5F);
  // All sub-blocks alike: low six bits 32 in the first eight bytes, whose high bits give the last
  // four sub-blocks their 2 * 16, and nothing in the rest.
  std::fill_n(block.scales.begin(), 8, std::uint8_t{0b10'100000});
  std::fill_n(block.scales.begin() + 8, 4, std::uint8_t{0});
}

void set_scales(IQ2XXS::Block& block, float unit) {
  block.d = f32_to_f16(unit);
  for (std::size_t group = 0; group < IQ2XXS::kGroups; ++group) {
    std::uint16_t& high = block.qs[group * 4 + 3];
    const unsigned scale = 6 + ((high >> 12) & 3U);
    high = static_cast<std::uint16_t>((high & 0x0FFF) | (scale << 12));
  }
}

void set_scales(MXFP4::Block& block, float unit) {
  // The power of two nearest to the unit.
  const int exponent = static_cast<int>(std::lrint(std::log2(double{unit})));
  block.e = static_cast<std::uint8_t>(std::clamp(exponent + 127, 0, 254));
}

template <class F>
void fill_blocks(float unit, Random& random, std::span<std::byte> bytes) {
  fill_bytes(random, bytes);
  typename F::Block block;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof block) {
    std::memcpy(&block, bytes.data() + at, sizeof block);
    set_scales(block, unit);
    std::memcpy(bytes.data() + at, &block, sizeof block);
  }
}

template <class Stored, class Convert>
void fill_plain(float deviation, Random& random, std::span<std::byte> bytes, Convert convert) {
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(Stored)) {
    const Stored stored = convert(deviation * random.normal());
    std::memcpy(bytes.data() + at, &stored, sizeof stored);
  }
}

}  // namespace

Random::Random(std::uint64_t seed) {
  for (std::uint64_t& word : state_) {
    seed += 0x9E3779B97F4A7C15;
    std::uint64_t mixed = seed;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB;
    word = mixed ^ (mixed >> 31);
  }
}

std::uint64_t Random::next() {
  const std::uint64_t result = rotate_left(state_[0] + state_[3], 23) + state_[0];
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = rotate_left(state_[3], 45);
  return result;
}

float Random::normal() {
  const std::uint64_t word = next();
  const std::uint32_t sum = static_cast<std::uint32_t>((word & 0xFFFF) + ((word >> 16) & 0xFFFF) +
                                                       ((word >> 32) & 0xFFFF) + (word >> 48));
  // Four uniform 16-bit values: mean 2 * 65535, deviation 65536 / sqrt(3).
  return (static_cast<float>(sum) - 131070.0F) * (1.7320508F / 65536.0F);
}

void fill_random_blocks(ElementType type,
                        float deviation,
                        Random& random,
                        std::span<std::byte> blocks) {
  const auto unit = static_cast<float>(double{deviation} / unit_deviation(type));
  switch (type) {
    case ElementType::kF32:
      return fill_plain<float>(deviation, random, blocks, [](float value) { return value; });
    case ElementType::kF16:
      return fill_plain<std::uint16_t>(deviation, random, blocks, f32_to_f16);
    case ElementType::kBF16:
      return fill_plain<std::uint16_t>(deviation, random, blocks, f32_to_bf16);
    case ElementType::kQ8_0:
      return fill_blocks<Q8_0>(unit, random, blocks);
    case ElementType::kQ2K:
      return fill_blocks<Q2K>(unit, random, blocks);
    case ElementType::kQ4K:
      return fill_blocks<Q4K>(unit, random, blocks);
    case ElementType::kIQ2XXS:
      return fill_blocks<IQ2XXS>(unit, random, blocks);
    case ElementType::kMXFP4:
      return fill_blocks<MXFP4>(unit, random, blocks);
    case ElementType::kI32:
      break;
  }
  DS4_CHECK(false);
}

}  // namespace ds4::convert
