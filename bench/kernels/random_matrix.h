#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "cuda/matrix.h"
#include "ladder.h"
#include "tensor/float16.h"

namespace ds4::ladder {

using cuda::Matrix;

// A matrix of random codes in a format's planes, whose scales are numbers.
struct RandomMatrix {
  Matrix m;
  Device<std::byte> codes;
  Device<std::byte> scales;

  static std::vector<std::byte> bytes(std::size_t count, std::uint32_t seed) {
    std::vector<std::byte> all(count);
    std::uint32_t state = seed * 2654435761U + 1;
    for (auto& b : all) {
      state = state * 1664525U + 1013904223U;
      b = static_cast<std::byte>(state >> 24);
    }
    return all;
  }
  static void put_half(std::vector<std::byte>& to, std::size_t at, float value) {
    const std::uint16_t bits = f32_to_f16(value);
    to[at] = static_cast<std::byte>(bits & 255);
    to[at + 1] = static_cast<std::byte>(bits >> 8);
  }
  static std::vector<std::byte> make_codes(ElementType type,
                                           std::size_t count,
                                           std::uint32_t seed) {
    std::vector<std::byte> all = bytes(count, seed);
    const auto value = [&](std::size_t at) {
      return (static_cast<float>(static_cast<int>(all[at])) - 127.5F) * 1e-4F;
    };
    if (type == ElementType::kF16)
      for (std::size_t i = 0; i < count; i += 2)
        put_half(all, i, value(i));
    const std::size_t size = type == ElementType::kF32 ? 4 : type == ElementType::kBF16 ? 2 : 0;
    for (std::size_t i = 0; size != 0 && i < count; i += size) {
      const float v = value(i);
      std::memcpy(&all[i], reinterpret_cast<const std::byte*>(&v) + 4 - size, size);
    }
    return all;
  }
  // Scales that are numbers; block scales around 0.001.
  static std::vector<std::byte> make_scales(ElementType type,
                                            std::size_t rows,
                                            std::size_t row_bytes,
                                            std::uint32_t columns,
                                            std::uint32_t seed) {
    std::vector<std::byte> all = bytes(rows * row_bytes, seed);
    const auto value = [&](std::size_t at) {
      return 0.0005F + 1e-5F * static_cast<float>(static_cast<int>(all[at]));
    };
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t first = r * row_bytes;
      if (type == ElementType::kQ8_0 || type == ElementType::kIQ2XXS)
        for (std::size_t i = 0; i < row_bytes; i += 2)
          put_half(all, first + i, value(first + i));
      if (type == ElementType::kMXFP4)
        for (std::size_t i = 0; i < row_bytes; ++i)
          all[first + i] = (all[first + i] & std::byte{3}) | std::byte{116};
      if (type == ElementType::kQ4K)
        for (std::size_t i = 0; i < row_bytes; i += 16) {
          put_half(all, first + i, value(first + i));
          put_half(all, first + i + 2, value(first + i + 2));
        }
      if (type == ElementType::kQ2K)
        for (std::size_t i = columns / 16; i < row_bytes; i += 2)
          put_half(all, first + i, value(first + i));
    }
    return all;
  }

  RandomMatrix(ElementType type,
               std::uint32_t slabs,
               std::uint32_t rows,
               std::uint32_t columns,
               std::uint32_t seed)
      : m(shape(type, slabs, rows, columns)),
        codes(make_codes(type, std::size_t{slabs} * rows * m.codes_bytes, seed)),
        scales(make_scales(type, std::size_t{slabs} * rows, m.scales_bytes, columns, seed + 1)) {
    m.codes = codes.get();
    m.scales = scales.get();
  }
  static Matrix shape(ElementType type,
                      std::uint32_t slabs,
                      std::uint32_t rows,
                      std::uint32_t columns) {
    const cuda::PlaneSizes sizes = cuda::plane_sizes(type);
    const std::uint32_t blocks = columns / static_cast<std::uint32_t>(block_columns(type));
    return {type,    slabs,  rows, columns, blocks * sizes.codes, blocks * sizes.scales,
            nullptr, nullptr};
  }
  static std::size_t block_columns(ElementType type) {
    switch (type) {
      case ElementType::kF32:
      case ElementType::kF16:
      case ElementType::kBF16:
        return 1;
      case ElementType::kQ8_0:
      case ElementType::kMXFP4:
        return 32;
      default:
        return 256;
    }
  }
  std::size_t bytes_of_all() const { return codes.count() + scales.count(); }
};

inline std::vector<std::uint16_t> random_halves(std::size_t count, float size, std::uint32_t seed) {
  std::vector<std::uint16_t> all(count);
  std::uint32_t state = seed * 747796405U + 7;
  for (auto& h : all) {
    state = state * 1664525U + 1013904223U;
    h = f32_to_f16((static_cast<float>(state >> 8) * 0x1p-24F - 0.5F) * size);
  }
  return all;
}

inline const Device<std::byte>& grid_of_card() {
  // Magnitudes as the codebook has them; which ones does not matter to time.
  static const Device<std::byte> grid([] {
    std::vector<std::byte> all = RandomMatrix::bytes(2048, 99);
    for (auto& b : all) {
      constexpr int kMagnitudes[3] = {8, 25, 43};
      b = static_cast<std::byte>(kMagnitudes[static_cast<int>(b) % 3]);
    }
    return all;
  }());
  return grid;
}

inline double relative_distance(const std::vector<double>& expected,
                                const std::vector<double>& found) {
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += (expected[i] - found[i]) * (expected[i] - found[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

}  // namespace ds4::ladder
