// The experts of one row: two launches that read the codes of each chosen expert.
//
//   mid[s] = silu(min(W1 x, limit)) * clamp(W3 x, limit) * weight       out = sum of W2 mid[s]
//
// Slots of the row are its chosen experts, then the shared one.  Products are integer
// (integer_dot.cuh).
//
// gate_up: a block makes some tiles of 16 values of one slot (gate_up_tiles()).  Blocks of the
// shared expert come first in the grid, as they are the longest, and share the columns of a tile.
//
// down: a block makes 16 outputs, every slot has one or two warps, which share the columns, and
// slots are added in the block.
//
// Memory: codes once; the input once a block, from the second-level cache.
#include <algorithm>

#include "cuda/expert_tiles.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kGateWarps = 8;

// Tiles that a block makes of a routed expert and of the shared one.
struct GateShares {
  std::uint32_t routed = 0, shared = 0;
};

template <ElementType kRouted, ElementType kShared>
DS4_KERNEL void DS4_BOUNDS(kGateWarps * 32, 2) gate_up_of_row(ExpertsJob job, GateShares each) {
  DS4_SHARED GateMemory<kRouted, kGateWarps> memory;
  const std::uint32_t tiles = shares(job.gate.rows, kTileOutputs);
  const std::uint32_t shared_blocks = shares(tiles, each.shared);
  const bool is_shared = blockIdx.x < shared_blocks;
  const std::uint32_t block = is_shared ? blockIdx.x : blockIdx.x - shared_blocks;
  const std::uint32_t own = is_shared ? each.shared : each.routed;
  const std::uint32_t slot = is_shared ? job.used : block / shares(tiles, own);
  TileRange range{block % shares(tiles, own) * own, own};
  range.count = std::min(range.count, tiles - range.first);
  const ElementType type = is_shared ? job.shared_gate.type : job.gate.type;
  if (type == ElementType::kIQ2XXS) load_codebook(job.grid, memory.book);
  const auto row_of = [](std::uint32_t) { return 0U; };
  if (is_shared) {
    // Its codes are known before the router has spoken.
    const auto put = [&](std::uint32_t, std::uint32_t output, float gate, float up) {
      job.mid[std::size_t{slot} * job.gate.rows + output] = activated(gate, up, job.limit, 1.0F);
    };
    return with_expert_codec<kRouted, kShared>(true, type, [&](auto codec) {
      gate_up_tiles<decltype(codec), 1, kSharedParts>(job.shared_gate, job.shared_up, 0, range,
                                                      job.x, 1, memory, row_of, put);
    });
  }
  wait_for_inputs();
  const auto slab = static_cast<std::size_t>(job.ids[slot]);
  const auto put = [&](std::uint32_t, std::uint32_t output, float gate, float up) {
    job.mid[std::size_t{slot} * job.gate.rows + output] =
        activated(gate, up, job.limit, job.weights[slot]);
  };
  block_sync();  // the codebook is complete
  with_expert_codec<kRouted, kShared>(false, type, [&](auto codec) {
    gate_up_tiles<decltype(codec), 1, 1>(job.gate, job.up, slab, range, job.x, 1, memory, row_of,
                                         put);
  });
}

template <ElementType kRouted, ElementType kShared, std::uint32_t kDownParts>
DS4_KERNEL void DS4_BOUNDS(kRowDownThreadsMax, 1) down_of_row(ExpertsJob job) {
  DS4_SHARED CodebookMemory<book_copies(kRouted)> book_memory;
  DS4_SHARED float partial[kExpertsUsedMax + 1][kDownParts][kTileOutputs];
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t slot = warp / kDownParts;
  const std::uint32_t columns = job.down.columns;
  const Codebook book = book_memory.view();
  if (job.down.type == ElementType::kIQ2XXS || job.shared_down.type == ElementType::kIQ2XXS)
    load_codebook(job.grid, book_memory);
  const bool is_shared = slot == job.used;
  const Matrix& m = is_shared ? job.shared_down : job.down;
  // The ids are older than the launch before this one, so they need no wait.
  const std::size_t slab = is_shared ? 0 : static_cast<std::size_t>(job.ids[slot]);
  const IntegerRows x(dynamic_shared() + slot * integer_rows_bytes(1, columns), 1, columns);
  const float* mid = job.mid + std::size_t{slot} * columns;
  const std::uint32_t tiles = shares(m.rows, kTileOutputs);
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(m, slab, (blockIdx.x + i * gridDim.x) * kTileOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    // A slot's warps bring in its row.  All warps meet here, though some from the shared expert's
    // code and some from the routed experts'.
    put_rows_by<false>(
        x, 1, columns, [&](std::uint32_t) { return mid; }, warp % kDownParts, kDownParts);
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[1][2]) {
    if (lane % 4 == 0) {
      partial[slot][warp % kDownParts][lane / 4] = sums[0][0];
      partial[slot][warp % kDownParts][lane / 4 + 8] = sums[0][1];
    }
    block_sync();
    const std::uint32_t output = (blockIdx.x + i * gridDim.x) * kTileOutputs + threadIdx.x;
    if (threadIdx.x < kTileOutputs && output < m.rows) {
      float total = 0;
      for (std::uint32_t s = 0; s <= job.used; ++s) {
        float sum = partial[s][0][threadIdx.x];
#pragma unroll
        for (std::uint32_t p = 1; p < kDownParts; ++p)
          sum += partial[s][p][threadIdx.x];
        total += sum;
      }
      job.output[output] = total;
    }
    block_sync();
  };
  const std::uint32_t count = (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x;
  with_expert_codec<kRouted, kShared>(is_shared, m.type, [&](auto codec) {
    walk_tiles<decltype(codec), 1>(count, columns, warp % kDownParts, kDownParts, x, 1, &book,
                                   tile_of, stage, finish);
  });
}

// The kernels of the published combinations, else the one for all.
using GateKernel = void (*)(ExpertsJob, GateShares);
GateKernel gate_up_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_gate.type == kShared && job.shared_up.type == kShared) {
    if (job.gate.type == ElementType::kIQ2XXS) return gate_up_of_row<ElementType::kIQ2XXS, kShared>;
    if (job.gate.type == ElementType::kQ4K) return gate_up_of_row<ElementType::kQ4K, kShared>;
  }
  return gate_up_of_row<kAnyType, kAnyType>;
}

using DownKernel = void (*)(ExpertsJob);
template <std::uint32_t kDownParts>
DownKernel down_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_down.type == kShared) {
    if (job.down.type == ElementType::kQ2K)
      return down_of_row<ElementType::kQ2K, kShared, kDownParts>;
    if (job.down.type == ElementType::kQ4K)
      return down_of_row<ElementType::kQ4K, kShared, kDownParts>;
  }
  return down_of_row<kAnyType, kAnyType, kDownParts>;
}

}  // namespace

void run_experts_of_row(Stream& stream, const DeviceInfo& device, const ExpertsJob& job) {
  DS4_CHECK(job.rows == 1);
  // Two blocks a multiprocessor; a tile of the shared expert has several times the bytes.
  const std::uint32_t tiles = shares(job.gate.rows, kTileOutputs);
  const std::uint32_t share = tiles * (job.used + 3) / (device.multiprocessors * 2);
  GateShares each;
  constexpr std::uint32_t kAtOnce = kGateWarps / 2;
  each.routed = std::clamp(share / kAtOnce * kAtOnce, kAtOnce, 2 * kAtOnce);
  each.shared = each.routed / 2;
  launch(stream, "expert gate and up",
         {.grid_x = shares(tiles, each.shared) + job.used * shares(tiles, each.routed),
          .threads = kGateWarps * 32,
          .shared_bytes = integer_rows_bytes(1, job.gate.columns)},
         gate_up_kernel(job), job, each);

  const std::uint32_t slots = job.used + 1;
  const std::uint32_t parts = down_parts(job);
  const std::size_t bytes = slots * integer_rows_bytes(1, job.down.columns);
  DS4_CHECK(bytes + 24 * 1024 <= device.shared_bytes_max);
  launch(stream, "expert down",
         {.grid_x = std::min(shares(job.down.rows, kTileOutputs), device.multiprocessors),
          .threads = slots * parts * 32,
          .shared_bytes = bytes},
         parts == 2 ? down_kernel<2>(job) : down_kernel<1>(job), job);
}

}  // namespace ds4::cuda
