#include "quant/codec.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "quant/format.h"
#include "quant/iq2_xxs.h"
#include "quant/mxfp4.h"
#include "quant/q2_k.h"
#include "quant/q4_k.h"
#include "quant/q8_0.h"
#include "tensor/float16.h"

namespace ds4::quant {

namespace {

// Rows may start at any byte, so blocks are copied in and out.
template <class F>
void decode_blocks(std::span<const std::byte> row, std::span<float> values) {
  typename F::Block block;
  for (std::size_t i = 0; i < values.size() / F::kValues; ++i) {
    std::memcpy(&block, row.data() + i * sizeof block, sizeof block);
    F::decode(block, values.subspan(i * F::kValues).template first<F::kValues>());
  }
}

template <class F>
void encode_blocks(std::span<const float> values,
                   std::span<std::byte> row,
                   std::span<const float> importance) {
  typename F::Block block;
  for (std::size_t i = 0; i < values.size() / F::kValues; ++i) {
    const std::size_t start = i * F::kValues;
    F::encode(values.subspan(start).template first<F::kValues>(),
              importance.empty() ? importance : importance.subspan(start, F::kValues), block);
    std::memcpy(row.data() + i * sizeof block, &block, sizeof block);
  }
}

// Plain types: one stored number per value.
template <class Stored, class Convert>
void decode_plain(std::span<const std::byte> row, std::span<float> values, Convert convert) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, row.data() + i * sizeof stored, sizeof stored);
    values[i] = convert(stored);
  }
}

template <class Stored, class Convert>
void encode_plain(std::span<const float> values, std::span<std::byte> row, Convert convert) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Stored stored = convert(values[i]);
    std::memcpy(row.data() + i * sizeof stored, &stored, sizeof stored);
  }
}

}  // namespace

void decode_row(ElementType type, std::span<const std::byte> row, std::span<float> values) {
  DS4_CHECK(row.size() == row_bytes(type, values.size()));
  switch (type) {
    case ElementType::kF32:
      if (!values.empty()) std::memcpy(values.data(), row.data(), row.size());
      return;
    case ElementType::kF16:
      return decode_plain<std::uint16_t>(row, values, f16_to_f32);
    case ElementType::kBF16:
      return decode_plain<std::uint16_t>(row, values, bf16_to_f32);
    case ElementType::kI32:
      return decode_plain<std::int32_t>(
          row, values, [](std::int32_t value) { return static_cast<float>(value); });
    case ElementType::kQ8_0:
      return decode_blocks<Q8_0>(row, values);
    case ElementType::kQ2K:
      return decode_blocks<Q2K>(row, values);
    case ElementType::kQ4K:
      return decode_blocks<Q4K>(row, values);
    case ElementType::kIQ2XXS:
      return decode_blocks<IQ2XXS>(row, values);
    case ElementType::kMXFP4:
      return decode_blocks<MXFP4>(row, values);
  }
  DS4_CHECK(false);
}

void encode_row(ElementType type,
                std::span<const float> values,
                std::span<std::byte> row,
                std::span<const float> importance) {
  DS4_CHECK(row.size() == row_bytes(type, values.size()));
  DS4_CHECK(importance.empty() || importance.size() == values.size());
  switch (type) {
    case ElementType::kF32:
      if (!values.empty()) std::memcpy(row.data(), values.data(), row.size());
      return;
    case ElementType::kF16:
      return encode_plain<std::uint16_t>(values, row, f32_to_f16);
    case ElementType::kBF16:
      return encode_plain<std::uint16_t>(values, row, f32_to_bf16);
    case ElementType::kI32:
      return encode_plain<std::int32_t>(
          values, row, [](float value) { return static_cast<std::int32_t>(std::lrint(value)); });
    case ElementType::kQ8_0:
      return encode_blocks<Q8_0>(values, row, importance);
    case ElementType::kQ2K:
      return encode_blocks<Q2K>(values, row, importance);
    case ElementType::kQ4K:
      return encode_blocks<Q4K>(values, row, importance);
    case ElementType::kIQ2XXS:
      return encode_blocks<IQ2XXS>(values, row, importance);
    case ElementType::kMXFP4:
      return encode_blocks<MXFP4>(values, row, importance);
  }
  DS4_CHECK(false);
}

}  // namespace ds4::quant
