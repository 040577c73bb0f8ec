// Fetches of weights into the second-level cache.  A thread asks for kPieceBytes at a time; nothing
// comes to the multiprocessors, which are left to the kernels beside it.
#include <algorithm>

#include "cuda/ahead.h"
#include "cuda/platform.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 32;
constexpr std::uint32_t kBlocks = 128;
constexpr std::uint32_t kPieceBytes = 4096;
constexpr std::uint32_t kPartsMax = 16;
// Of one fetch: about half of the cache of the cards that profit.
constexpr std::uint64_t kFetchBytesMax = std::uint64_t{24} << 20;

struct Parts {
  const std::byte* begin[kPartsMax];
  std::uint64_t bytes[kPartsMax];
  std::uint32_t count = 0;
};

DS4_KERNEL void fetch_parts(Parts parts) {
  for (std::uint32_t p = 0; p < parts.count; ++p) {
    const std::uint64_t bytes = parts.bytes[p];
    for (std::uint64_t at = (std::uint64_t{blockIdx.x} * kThreads + threadIdx.x) * kPieceBytes;
         at < bytes; at += std::uint64_t{kBlocks} * kThreads * kPieceBytes) {
      const std::uint64_t left = (bytes - at) / 16 * 16;
      fetch_to_cache(parts.begin[p] + at,
                     static_cast<std::uint32_t>(left < kPieceBytes ? left : kPieceBytes));
    }
  }
}

}  // namespace

void Ahead::fetch(Stream& main, std::initializer_list<const Matrix*> matrices) {
  Parts parts;
  std::uint64_t left = kFetchBytesMax;
  const auto add = [&](const std::byte* begin, std::uint64_t bytes) {
    bytes = std::min(bytes, left);
    if (bytes < kPieceBytes || parts.count == kPartsMax) return;
    parts.begin[parts.count] = begin;
    parts.bytes[parts.count++] = bytes;
    left -= bytes;
  };
  for (const Matrix* m : matrices) {
    const std::uint64_t rows = std::uint64_t{m->slabs} * m->rows;
    add(m->codes, rows * m->codes_bytes);
    add(m->scales, rows * m->scales_bytes);
  }
  if (parts.count == 0) return;
  mark_.set(main);
  mark_.hold(stream_);
  launch(stream_, "fetching ahead", {.grid_x = kBlocks, .threads = kThreads}, fetch_parts, parts);
  used_ = true;
}

void Ahead::join(Stream& main) {
  if (!used_) return;
  mark_.set(stream_);
  mark_.hold(main);
  used_ = false;
}

}  // namespace ds4::cuda
