#pragma once
#include "cuda/activate.cuh"
#include "cuda/experts.h"
#include "cuda/integer_dot.cuh"

namespace ds4::cuda {

// What the kernels for one row's experts and for several rows' have in common: see row_experts.cu
// and few_experts.cu.

// Warps that share the columns of a tile of the shared expert, whose tiles are few and long.
inline constexpr std::uint32_t kSharedParts = 4;
inline constexpr std::uint32_t kSharedRows = 8;  // rows that share a read of the shared expert

inline constexpr std::uint32_t kRowDownThreadsMax = 512;
// Parts that the columns of a product of `down` are added up in, whatever the rows: two, for as
// many warps of each slot of one row.
constexpr std::uint32_t down_parts(const ExpertsJob& job) {
  return (job.used + 1) * 64 <= kRowDownThreadsMax ? 2 : 1;
}

// The experts of one row; run_experts_of_few() comes here.
void run_experts_of_row(Stream& stream, const DeviceInfo& device, const ExpertsJob& job);

// Stands for a type that the kernel does not know beforehand.  A kernel built for its types needs
// fewer registers than one that holds every format.
inline constexpr ElementType kAnyType = ElementType::kI32;

template <ElementType kKnown, class Body>
DS4_DEVICE void with_known_codec(ElementType type, const Body& body) {
  if constexpr (kKnown == kAnyType) {
    with_codec(type, body);
  } else {
    body(Codec<kKnown>{});
  }
}

template <ElementType kRouted, ElementType kShared, class Body>
DS4_DEVICE void with_expert_codec(bool is_shared, ElementType type, const Body& body) {
  if (kRouted != kAnyType && is_shared) return with_known_codec<kShared>(type, body);
  with_known_codec<kRouted>(type, body);
}

constexpr std::uint32_t shares(std::uint32_t count, std::uint32_t each) {
  return (count + each - 1) / each;
}

// Lanes' copies of IQ2_XXS's codebook, where a kernel may meet the format.
constexpr std::uint32_t book_copies(ElementType type) {
  return type == ElementType::kIQ2XXS || type == kAnyType ? 16 : 1;
}

// Shared memory of a block that makes tiles of gate and up.
template <ElementType kRouted, std::uint32_t kWarpsMax>
struct GateMemory {
  CodebookMemory<book_copies(kRouted)> book;
  // Sums of the warps that share a tile's columns, of gate and up.
  float parts[2][kWarpsMax / 2][kTileOutputs][kSharedRows];
};

struct TileRange {
  std::uint32_t first, count;
};

// Tiles of one expert's gate and up by the whole block: half of its warps hold the gate's weight
// rows, half the other's, and kParts warps share a tile's columns.  Parts meet in shared memory and
// are added in warp order.  row_of(r) names one of `rows` rows of x; put(r, output, gate, up) takes
// a result.
template <class C, int kTiles, std::uint32_t kParts, class Memory, class RowOf, class Put>
DS4_DEVICE void gate_up_tiles(const Matrix& gate,
                              const Matrix& up,
                              std::size_t slab,
                              const TileRange& range,
                              std::byte* all_x,
                              std::uint32_t rows,
                              Memory& memory,
                              const RowOf& row_of,
                              const Put& put) {
  const Codebook book = memory.book.view();
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t gate_warps = blockDim.x / 64;
  const std::uint32_t half = warp / gate_warps;
  const std::uint32_t sets = gate_warps / kParts;  // tiles at a time
  const std::uint32_t own_tile = range.first + warp % gate_warps / kParts;
  const IntegerRows x(dynamic_shared(), rows, gate.columns);
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(half == 0 ? gate : up, slab, (own_tile + i * sets) * kTileOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    copy_rows(x, rows,
              [&](std::uint32_t r) { return row_integers(all_x, row_of(r), gate.columns); });
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[kTiles][2]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (std::uint32_t k = 0; k < 2; ++k)
        memory.parts[half][warp % gate_warps][lane / 4 + k * 8]
                    [static_cast<std::uint32_t>(t) * 4 + lane % 4] = sums[t][k];
    block_sync();
    for (std::uint32_t at = threadIdx.x; at < sets * kTileOutputs * rows; at += blockDim.x) {
      const std::uint32_t o = at % kTileOutputs;
      const std::uint32_t set = at / kTileOutputs % sets;
      const std::uint32_t r = at / (kTileOutputs * sets);
      const std::uint32_t tile = i * sets + set;
      const std::uint32_t output = (range.first + tile) * kTileOutputs + o;
      if (tile >= range.count || output >= gate.rows) continue;
      float total[2] = {0, 0};
      for (std::uint32_t p = set * kParts; p < (set + 1) * kParts; ++p) {
        total[0] += memory.parts[0][p][o][r];
        total[1] += memory.parts[1][p][o][r];
      }
      put(r, output, total[0], total[1]);
    }
    block_sync();
  };
  walk_tiles<C, kTiles>(shares(range.count, sets), gate.columns, warp % kParts, kParts, x, rows,
                        &book, tile_of, stage, finish);
}

}  // namespace ds4::cuda
