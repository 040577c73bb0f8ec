// Takes the file's blocks apart into the planes of a Matrix, in the order of the codecs' units. One
// thread a unit, which reads its bytes one by one, as blocks are not aligned: each byte moves once
// through the first-level cache, far faster than the copy that feeds it.
#include "cuda/codecs.cuh"
#include "cuda/weights.h"

namespace ds4::cuda {

namespace {

DS4_DEVICE std::uint32_t byte_at(const std::byte* from, std::uint32_t index) {
  return static_cast<std::uint32_t>(from[index]);
}
DS4_DEVICE std::uint32_t word_at(const std::byte* from, std::uint32_t index) {
  return byte_at(from, index) | (byte_at(from, index + 1) << 8) | (byte_at(from, index + 2) << 16) |
         (byte_at(from, index + 3) << 24);
}
DS4_DEVICE std::uint32_t half_at(const std::byte* from, std::uint32_t index) {
  return byte_at(from, index) | (byte_at(from, index + 1) << 8);
}
DS4_DEVICE Words4 words_at(const std::byte* from, std::uint32_t low, std::uint32_t high) {
  return {word_at(from, low), word_at(from, low + 4), word_at(from, high), word_at(from, high + 4)};
}

// Where a unit comes from and goes to: lane `q` of superblock `index` of a row.
struct Place {
  const std::byte* row;  // the file's row
  std::byte* codes;
  std::byte* scales;
  std::uint32_t columns;
  std::uint32_t index;
  std::uint32_t q;

  DS4_DEVICE std::uint32_t unit() const { return index * 4 + q; }
};

template <ElementType type>
DS4_DEVICE void repack_unit(const Place& p);

template <>
DS4_DEVICE void repack_unit<ElementType::kQ8_0>(const Place& p) {
  const std::byte* pair = p.row + p.index * 68;  // two blocks: d, 32 bytes
  reinterpret_cast<Words4*>(p.codes)[p.unit()] = words_at(pair, 2 + p.q * 8, 36 + p.q * 8);
  if (p.q == 0)
    reinterpret_cast<std::uint32_t*>(p.scales)[p.index] =
        half_at(pair, 0) | (half_at(pair, 34) << 16);
}

template <>
DS4_DEVICE void repack_unit<ElementType::kIQ2XXS>(const Place& p) {
  // d; for each 32 columns four codebook indices, then four times seven signs and the scale.
  const std::byte* block = p.row + p.index * 66;
  std::uint32_t indices[2] = {0, 0};
  std::uint32_t signs[2] = {0, 0};
  std::uint32_t scales[2] = {0, 0};
  for (std::uint32_t g = 0; g < 8; ++g) {
    indices[g / 4] |= byte_at(block, 2 + g * 8 + p.q) << (8 * (g % 4));
    const std::uint32_t word = word_at(block, 6 + g * 8);
    for (std::uint32_t k = 0; k < 7; ++k)
      signs[g / 4] |= ((word >> (7 * p.q + k)) & 1) << (4 * k + g % 4);
    if (g / 2 == p.q) scales[g % 2] = word >> 28 << 28;
  }
  // Each sign with those before it: the last of them then holds the parity.
  for (std::uint32_t i = 0; i < 2; ++i) {
    for (std::uint32_t step = 4; step < 28; step *= 2)
      signs[i] ^= signs[i] << step;
    signs[i] = (signs[i] & 0x0FFFFFFFU) | scales[i];
  }
  reinterpret_cast<Words4*>(p.codes)[p.unit()] = {indices[0], indices[1], signs[0], signs[1]};
  if (p.q == 0)
    reinterpret_cast<std::uint16_t*>(p.scales)[p.index] =
        static_cast<std::uint16_t>(half_at(block, 0));
}

template <>
DS4_DEVICE void repack_unit<ElementType::kMXFP4>(const Place& p) {
  const std::byte* pair = p.row + p.index * 34;  // two blocks: exponent, 16 bytes of low, high
  std::uint32_t words[2] = {0, 0};
  for (std::uint32_t b = 0; b < 2; ++b)
    for (std::uint32_t i = 0; i < 8; ++i) {
      const std::uint32_t column = p.q * 8 + i;
      const std::uint32_t byte = byte_at(pair, b * 17 + 1 + column % 16);
      words[b] |= (column < 16 ? byte & 15 : byte >> 4) << (4 * i);
    }
  reinterpret_cast<Words2*>(p.codes)[p.unit()] = {words[0], words[1]};
  if (p.q == 0)
    reinterpret_cast<std::uint16_t*>(p.scales)[p.index] =
        static_cast<std::uint16_t>(byte_at(pair, 0) | (byte_at(pair, 17) << 8));
}

template <>
DS4_DEVICE void repack_unit<ElementType::kQ4K>(const Place& p) {
  // d, dmin, 12 bytes of scales; then 32 bytes for each 64 columns.
  const std::byte* block = p.row + p.index / 2 * 144;
  const std::uint32_t first = 16 + p.index % 2 * 64 + p.q * 8;
  reinterpret_cast<Words4*>(p.codes)[p.unit()] = words_at(block, first, first + 32);
  if (p.q == 0 && p.index % 2 == 0)
    reinterpret_cast<Words4*>(p.scales)[p.index / 2] = words_at(block, 0, 8);
}

template <>
DS4_DEVICE void repack_unit<ElementType::kQ2K>(const Place& p) {
  // 16 bytes of scales and mins, 32 bytes for each 128 columns, d, dmin.
  const std::byte* block = p.row + p.index * 84;
  reinterpret_cast<Words4*>(p.codes)[p.unit()] = words_at(block, 16 + p.q * 8, 48 + p.q * 8);
  if (p.q % 2 == 1) return;
  // Sub-blocks 2 * s + q / 2 serve segment s of this lane and the next.
  auto* words = reinterpret_cast<std::uint32_t*>(p.scales);
  for (std::uint32_t half = 0; half < 2; ++half) {
    std::uint32_t word = 0;
    for (std::uint32_t s = 0; s < 4; ++s)
      word |= byte_at(block, half * 8 + 2 * s + p.q / 2) << (8 * s);
    words[p.index * 4 + p.q + half] = word;
  }
  if (p.q == 0) words[p.columns / 256 * 4 + p.index] = word_at(block, 80);
}

template <ElementType type>
DS4_KERNEL void repack(const std::byte* staged,
                       Matrix to,
                       std::uint64_t row_bytes,
                       std::uint64_t first_row,
                       std::uint64_t units) {
  wait_for_inputs();
  const std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= units) return;
  const std::uint32_t row_units = to.columns / Codec<type>::kUnit;
  const std::uint64_t row = i / row_units;
  const auto unit = static_cast<std::uint32_t>(i % row_units);
  repack_unit<type>({staged + row * row_bytes,
                     const_cast<std::byte*>(to.codes) + (first_row + row) * to.codes_bytes,
                     const_cast<std::byte*>(to.scales) + (first_row + row) * to.scales_bytes,
                     to.columns, unit / 4, unit % 4});
}

template <ElementType type>
void launch_repack(Stream& stream,
                   const std::byte* staged,
                   const Matrix& to,
                   std::uint64_t first_row,
                   std::uint64_t row_count) {
  constexpr std::uint32_t kThreads = 256;
  const std::uint64_t units = row_count * (to.columns / Codec<type>::kUnit);
  launch(stream, "repacking weights",
         {.grid_x = static_cast<std::uint32_t>((units + kThreads - 1) / kThreads),
          .threads = kThreads},
         repack<type>, staged, to, std::uint64_t{to.codes_bytes} + to.scales_bytes, first_row,
         units);
}

}  // namespace

void repack_rows(Stream& stream,
                 const std::byte* staged,
                 const Matrix& to,
                 std::uint64_t first_row,
                 std::uint64_t row_count) {
  switch (to.type) {
    case ElementType::kQ8_0:
      return launch_repack<ElementType::kQ8_0>(stream, staged, to, first_row, row_count);
    case ElementType::kIQ2XXS:
      return launch_repack<ElementType::kIQ2XXS>(stream, staged, to, first_row, row_count);
    case ElementType::kMXFP4:
      return launch_repack<ElementType::kMXFP4>(stream, staged, to, first_row, row_count);
    case ElementType::kQ4K:
      return launch_repack<ElementType::kQ4K>(stream, staged, to, first_row, row_count);
    case ElementType::kQ2K:
      return launch_repack<ElementType::kQ2K>(stream, staged, to, first_row, row_count);
    case ElementType::kF32:
    case ElementType::kF16:
    case ElementType::kBF16:
    case ElementType::kI32:
      break;
  }
  DS4_CHECK(false);
}

}  // namespace ds4::cuda
