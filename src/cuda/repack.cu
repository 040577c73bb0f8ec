// Takes the file's blocks apart into the planes of a Matrix.  One thread a byte: the kernel moves
// each byte once and is far faster than the copy that feeds it.
#include "cuda/codecs.cuh"
#include "cuda/weights.h"

namespace ds4::cuda {

namespace {

struct BlockShape {
  std::uint32_t bytes;  // of a block in the file
  std::uint32_t head;   // leading bytes that go to the scales plane
  std::uint32_t codes;  // bytes after them that go to the codes plane; the rest are scales
};

constexpr BlockShape block_shape(ElementType type) {
  switch (type) {
    case ElementType::kQ8_0:
      return {34, 2, 32};
    case ElementType::kIQ2XXS:
      return {66, 2, 64};
    case ElementType::kMXFP4:
      return {17, 1, 16};
    case ElementType::kQ4K:
      return {144, 16, 128};
    case ElementType::kQ2K:
      return {84, 16, 64};
    default:
      return {};
  }
}

DS4_KERNEL void repack(const std::byte* staged,
                       Matrix to,
                       BlockShape shape,
                       std::uint32_t row_blocks,
                       std::uint64_t first_row,
                       std::uint64_t bytes) {
  wait_for_inputs();
  const std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= bytes) return;
  const std::uint64_t block = i / shape.bytes;
  const auto at = static_cast<std::uint32_t>(i % shape.bytes);
  const std::uint64_t row = first_row + block / row_blocks;
  const std::uint64_t column = block % row_blocks;
  auto* codes = const_cast<std::byte*>(to.codes) + row * to.codes_bytes;
  auto* scales = const_cast<std::byte*>(to.scales) + row * to.scales_bytes;
  const std::uint32_t tail = shape.bytes - shape.head - shape.codes;
  if (at < shape.head) {
    scales[column * shape.head + at] = staged[i];
  } else if (at < shape.head + shape.codes) {
    codes[column * shape.codes + at - shape.head] = staged[i];
  } else {
    scales[std::uint64_t{row_blocks} * shape.head + column * tail + at - shape.head - shape.codes] =
        staged[i];
  }
}

}  // namespace

void repack_rows(Stream& stream,
                 const std::byte* staged,
                 const Matrix& to,
                 std::uint64_t first_row,
                 std::uint64_t row_count) {
  const BlockShape shape = block_shape(to.type);
  const std::uint32_t row_blocks = to.codes_bytes / shape.codes;
  const std::uint64_t bytes = row_count * row_blocks * shape.bytes;
  constexpr std::uint32_t kThreads = 256;
  launch(stream, "repacking weights",
         {.grid_x = static_cast<std::uint32_t>((bytes + kThreads - 1) / kThreads),
          .threads = kThreads},
         repack, staged, to, shape, row_blocks, first_row, bytes);
}

}  // namespace ds4::cuda
