#include "backend/row_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "tensor/float16.h"

namespace ds4 {

namespace {

constexpr std::size_t kRowBlock = 64;         // values per E4M3 scale
constexpr std::size_t kKeyBlock = 32;         // values per E2M1 scale
constexpr float kRotaryLimit = 32767.0F;      // of the rotary values' 16-bit codes
constexpr float kRowAmaxFloor = 1e-4F;        // keeps an all-zero block's scale finite
constexpr float kKeyAmaxFloor = 0x1.8p-124F;  // 6 * 2^-126

float amax(std::span<const float> values, float floor) {
  float result = floor;
  for (const float value : values)
    result = std::max(result, std::fabs(value));
  return result;
}

// Scale exponent of a block: the smallest power of two that brings `amax` within `limit`.  The
// reference multiplies by the f32 reciprocal, so this does too.
int scale_exponent(float amax, float limit) {
  return ceil_log2(amax * (1.0F / limit));
}

std::byte e8m0(int exponent) {
  return static_cast<std::byte>(std::clamp(exponent + 127, 0, 254));
}

float e8m0_value(std::byte code) {
  return e8m0_to_f32(static_cast<std::uint8_t>(code));
}

}  // namespace

void pack_attention_row(const PackedRowLayout& layout,
                        std::span<const float> row,
                        std::span<std::byte> out) {
  DS4_DCHECK(row.size() == layout.nope_dim + layout.rope_dim && out.size() == layout.bytes());
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(layout.scale_offset()),
            out.begin() + static_cast<std::ptrdiff_t>(layout.rope_offset()), std::byte{0});
  for (std::size_t block = 0; block < layout.scale_count(); ++block) {
    const std::size_t first = block * kRowBlock;
    const auto values = row.subspan(first, std::min(kRowBlock, layout.nope_dim - first));
    const int exponent = scale_exponent(amax(values, kRowAmaxFloor), 448.0F);
    const float inverse = std::ldexp(1.0F, -exponent);
    for (std::size_t i = 0; i < values.size(); ++i)
      out[first + i] = static_cast<std::byte>(f32_to_e4m3(values[i] * inverse));
    out[layout.scale_offset() + block] = e8m0(exponent);
  }
  const auto rotary = row.subspan(layout.nope_dim, layout.rope_dim);
  const int exponent = scale_exponent(amax(rotary, kRowAmaxFloor), kRotaryLimit);
  const float inverse = std::ldexp(1.0F, -exponent);
  for (std::size_t i = 0; i < layout.rope_dim; ++i) {
    // No number at all, which a state from outside can lead to, becomes the limit.
    const float value =
        std::max(-kRotaryLimit, std::min(kRotaryLimit, std::nearbyint(rotary[i] * inverse)));
    const auto code = static_cast<std::int16_t>(value);
    std::memcpy(&out[layout.rope_offset() + 2 * i], &code, sizeof(code));
  }
  out[layout.rope_scale_offset()] = e8m0(exponent);
}

void unpack_attention_row(const PackedRowLayout& layout,
                          std::span<const std::byte> packed,
                          std::span<float> row) {
  DS4_DCHECK(row.size() == layout.nope_dim + layout.rope_dim && packed.size() == layout.bytes());
  for (std::size_t i = 0; i < layout.nope_dim; ++i) {
    const float scale = e8m0_value(packed[layout.scale_offset() + i / kRowBlock]);
    row[i] = e4m3_to_f32(static_cast<std::uint8_t>(packed[i])) * scale;
  }
  const float rope_scale = e8m0_value(packed[layout.rope_scale_offset()]);
  for (std::size_t i = 0; i < layout.rope_dim; ++i) {
    std::int16_t code = 0;
    std::memcpy(&code, &packed[layout.rope_offset() + 2 * i], sizeof(code));
    row[layout.nope_dim + i] = static_cast<float>(code) * rope_scale;
  }
}

void hadamard(std::span<float> values) {
  for (std::size_t stride = 1; stride < values.size(); stride *= 2) {
    for (std::size_t base = 0; base < values.size(); base += 2 * stride) {
      for (std::size_t i = base; i < base + stride; ++i) {
        const float a = values[i];
        const float b = values[i + stride];
        values[i] = a + b;
        values[i + stride] = a - b;
      }
    }
  }
  const float scale = 1.0F / std::sqrt(static_cast<float>(values.size()));
  for (float& value : values)
    value *= scale;
}

void pack_index_key(std::span<const float> key, std::span<std::byte> out) {
  DS4_DCHECK(out.size() == packed_index_key_bytes(key.size()));
  const std::size_t scales = key.size() / 2;
  std::fill(out.begin(), out.end(), std::byte{0});
  for (std::size_t block = 0; block * kKeyBlock < key.size(); ++block) {
    const auto values = key.subspan(block * kKeyBlock, kKeyBlock);
    const int exponent = scale_exponent(amax(values, kKeyAmaxFloor), 6.0F);
    const float inverse = std::ldexp(1.0F, -exponent);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t index = block * kKeyBlock + i;
      const auto code = static_cast<std::byte>(f32_to_e2m1(values[i] * inverse));
      out[index / 2] |= code << (index % 2 == 0 ? 0 : 4);
    }
    out[scales + block] = e8m0(exponent);
  }
}

void unpack_index_key(std::span<const std::byte> packed, std::span<float> key) {
  DS4_DCHECK(packed.size() == packed_index_key_bytes(key.size()));
  const std::size_t scales = key.size() / 2;
  for (std::size_t i = 0; i < key.size(); ++i) {
    const auto pair = static_cast<std::uint8_t>(packed[i / 2]);
    const auto code = static_cast<std::uint8_t>(i % 2 == 0 ? pair & 15 : pair >> 4);
    key[i] = e2m1_to_f32(code) * e8m0_value(packed[scales + i / kKeyBlock]);
  }
}

void round_index_key(std::span<float> key) {
  DS4_CHECK(key.size() <= kIndexDimMax);
  std::array<std::byte, packed_index_key_bytes(kIndexDimMax)> packed{};
  const auto used = std::span(packed).first(packed_index_key_bytes(key.size()));
  pack_index_key(key, used);
  unpack_index_key(used, key);
}

}  // namespace ds4
