// The experts of few rows: two launches that read each chosen expert's codes once.
//
//   mid[r][slot] = silu(min(W1 x, limit)) * clamp(W3 x, limit) * weight     out[r] = sum of W2 mid
//
// Slots of a row are its chosen experts, then the shared one.  Products are integer
// (integer_dot.cuh).
//
// gate_up: a block makes 16 values of one slot of one row, or of the shared slot of up to four
// rows; half of its 8 warps hold the gate's 16 weight rows, half the other's, and the warps of a
// half share the columns.  down: a block makes 16 outputs of one row; every slot has two warps,
// which share the columns.  Parts meet in shared memory and are added in warp order.
//
// Memory: codes once a (row, expert); the input once a block, from the second-level cache.  Sums do
// not depend on other rows.
#include "cuda/activate.cuh"
#include "cuda/experts.h"
#include "cuda/integer_dot.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kOutputs = 16;  // of a block
constexpr std::uint32_t kGateThreads = 256;
constexpr std::uint32_t kGateParts = 4;  // warps that share the columns of a matrix
constexpr std::uint32_t kDownThreadsMax = 512;
constexpr std::uint32_t kSharedRows = 4;  // rows that share a read of the shared expert

// Stands for a type that the kernel does not know beforehand.  A kernel built for its types needs
// fewer registers than one that holds every format.
constexpr ElementType kAnyType = ElementType::kI32;

template <ElementType kRouted, ElementType kShared, class Body>
DS4_DEVICE void with_expert_codec(bool is_shared, ElementType type, const Body& body) {
  if constexpr (kRouted == kAnyType) {
    with_codec(type, body);
  } else if (is_shared) {
    body(Codec<kShared>{});
  } else {
    body(Codec<kRouted>{});
  }
}

// What a block of gate_up() works on: some tiles of one slot.
struct GateShare {
  std::uint32_t first_row, rows;
  std::uint32_t slot;
  std::uint32_t first_tile, tile_count;
  bool is_shared;
};

DS4_DEVICE GateShare gate_share(const ExpertsJob& job) {
  GateShare share{};
  std::uint32_t block = blockIdx.x;
  const std::uint32_t routed_blocks = job.rows * job.used * job.routed_blocks;
  share.is_shared = block >= routed_blocks;
  std::uint32_t blocks = job.routed_blocks;
  if (share.is_shared) {
    block -= routed_blocks;
    blocks = job.shared_blocks;
    share.first_row = block / blocks * kSharedRows;
    share.rows =
        job.rows - share.first_row < kSharedRows ? job.rows - share.first_row : kSharedRows;
    share.slot = job.used;
  } else {
    share.first_row = block / blocks / job.used;
    share.rows = 1;
    share.slot = block / blocks % job.used;
  }
  const std::uint32_t tiles = (job.gate.rows + kOutputs - 1) / kOutputs;
  const std::uint32_t each = (tiles + blocks - 1) / blocks;
  share.first_tile = block % blocks * each;
  share.tile_count = share.first_tile >= tiles         ? 0
                     : tiles - share.first_tile < each ? tiles - share.first_tile
                                                       : each;
  return share;
}

template <ElementType kRouted, ElementType kShared>
DS4_KERNEL void DS4_BOUNDS(kGateThreads, 2) gate_up(ExpertsJob job) {
  DS4_SHARED Codebook book;
  DS4_SHARED float partial[2][kGateParts][kOutputs][kSharedRows];
  const GateShare share = gate_share(job);
  const Matrix& gate = share.is_shared ? job.shared_gate : job.gate;
  const Matrix& up = share.is_shared ? job.shared_up : job.up;
  if (share.tile_count == 0) return;
  if (gate.type == ElementType::kIQ2XXS) load_codebook(job.grid, &book);
  // Only the shared expert's codes are known before the router has spoken.
  if (!share.is_shared) wait_for_inputs();
  const std::uint32_t pair = share.first_row * job.used + share.slot;
  const std::size_t slab = share.is_shared ? 0 : static_cast<std::size_t>(job.ids[pair]);
  const float weight = share.is_shared ? 1.0F : job.weights[pair];
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t half = warp / kGateParts;
  const IntegerRows x(dynamic_shared(), share.rows, gate.columns);
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(half == 0 ? gate : up, slab, (share.first_tile + i) * kOutputs);
  };
  const auto stage = [&] {
    if (share.is_shared) wait_for_inputs();
    for (std::uint32_t r = 0; r < share.rows; ++r)
      copy_row(x, r, row_integers(job.x, share.first_row + r, gate.columns));
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[1][2]) {
#pragma unroll
    for (std::uint32_t k = 0; k < 2; ++k)
      partial[half][warp % kGateParts][lane / 4 + k * 8][lane % 4] = sums[0][k];
    block_sync();
    const std::uint32_t r = threadIdx.x / kOutputs;
    const std::uint32_t o = threadIdx.x % kOutputs;
    const std::uint32_t output = (share.first_tile + i) * kOutputs + o;
    if (r < share.rows && output < gate.rows) {
      float total[2] = {0, 0};
      for (std::uint32_t p = 0; p < kGateParts; ++p) {
        total[0] += partial[0][p][o][r];
        total[1] += partial[1][p][o][r];
      }
      const std::size_t row = std::size_t{share.first_row + r} * (job.used + 1) + share.slot;
      job.mid[row * gate.rows + output] = activated(total[0], total[1], job.limit, weight);
    }
    block_sync();
  };
  with_expert_codec<kRouted, kShared>(share.is_shared, gate.type, [&](auto codec) {
    walk_tiles<decltype(codec), 1>(share.tile_count, gate.columns, warp % kGateParts, kGateParts, x,
                                   share.rows, &book, tile_of, stage, finish);
  });
}

template <ElementType kRouted, ElementType kShared, std::uint32_t kDownParts>
DS4_KERNEL void DS4_BOUNDS(kDownThreadsMax, 1) down(ExpertsJob job) {
  DS4_SHARED Codebook book;
  DS4_SHARED float partial[(kExpertsUsedMax + 1) * kDownParts][kOutputs];
  const std::uint32_t r = blockIdx.y;
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t slot = warp / kDownParts;
  const std::uint32_t columns = job.down.columns;
  if (job.down.type == ElementType::kIQ2XXS || job.shared_down.type == ElementType::kIQ2XXS)
    load_codebook(job.grid, &book);
  const bool is_shared = slot == job.used;
  const Matrix& m = is_shared ? job.shared_down : job.down;
  // The ids are older than the launch before this one, so they need no wait.
  const std::size_t slab = is_shared ? 0 : static_cast<std::size_t>(job.ids[r * job.used + slot]);
  const IntegerRows x(dynamic_shared() + slot * integer_rows_bytes(1, columns), 1, columns);
  const float* mid = job.mid + (std::size_t{r} * (job.used + 1) + slot) * columns;
  const std::uint32_t tiles = (m.rows + kOutputs - 1) / kOutputs;
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(m, slab, (blockIdx.x + i * gridDim.x) * kOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    // A slot's warps bring in its row.  All warps meet here, though some from the shared expert's
    // code and some from the routed experts'.
    put_row_by(x, 0, mid, columns, warp % kDownParts, kDownParts);
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[1][2]) {
    if (lane % 4 == 0) {
      partial[warp][lane / 4] = sums[0][0];
      partial[warp][lane / 4 + 8] = sums[0][1];
    }
    block_sync();
    const std::uint32_t output = (blockIdx.x + i * gridDim.x) * kOutputs + threadIdx.x;
    if (threadIdx.x < kOutputs && output < m.rows) {
      float total = 0;
      for (std::uint32_t p = 0; p < (job.used + 1) * kDownParts; ++p)
        total += partial[p][threadIdx.x];
      job.output[std::size_t{r} * m.rows + output] = total;
    }
    block_sync();
  };
  const std::uint32_t count = (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x;
  with_expert_codec<kRouted, kShared>(is_shared, m.type, [&](auto codec) {
    walk_tiles<decltype(codec), 1>(count, columns, warp % kDownParts, kDownParts, x, 1, &book,
                                   tile_of, stage, finish);
  });
}

using ExpertsKernel = void (*)(ExpertsJob);

// The kernels of the published combinations, else the one for all.
ExpertsKernel gate_up_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_gate.type == kShared && job.shared_up.type == kShared) {
    if (job.gate.type == ElementType::kIQ2XXS) return gate_up<ElementType::kIQ2XXS, kShared>;
    if (job.gate.type == ElementType::kQ4K) return gate_up<ElementType::kQ4K, kShared>;
  }
  return gate_up<kAnyType, kAnyType>;
}

template <std::uint32_t kDownParts>
ExpertsKernel down_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_down.type == kShared) {
    if (job.down.type == ElementType::kQ2K) return down<ElementType::kQ2K, kShared, kDownParts>;
    if (job.down.type == ElementType::kQ4K) return down<ElementType::kQ4K, kShared, kDownParts>;
  }
  return down<kAnyType, kAnyType, kDownParts>;
}

}  // namespace

void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& wanted) {
  ExpertsJob job = wanted;
  const std::uint32_t slots = job.used + 1;
  const std::size_t down_bytes = slots * integer_rows_bytes(1, job.down.columns);
  DS4_CHECK(down_bytes + 8192 <= device.shared_bytes_max);
  // One row: all warps that fit; several: blocks small enough that two share a multiprocessor.
  const std::uint32_t parts = job.rows == 1 && slots * 64 <= kDownThreadsMax ? 2 : 1;
  const std::uint32_t shared_rows = job.rows < kSharedRows ? job.rows : kSharedRows;
  const std::uint32_t groups = (job.rows + kSharedRows - 1) / kSharedRows;
  // Two blocks a multiprocessor, few enough tiles each that the last to end is not late.  A tile of
  // the shared expert has several times the bytes of a routed one.
  const std::uint32_t tiles = (job.gate.rows + kOutputs - 1) / kOutputs;
  const std::uint32_t share =
      tiles * (job.rows * job.used + 3 * groups) / (device.multiprocessors * 2);
  const std::uint32_t each = share < 1 ? 1 : share > 8 ? 8 : share;
  job.routed_blocks = (tiles + each - 1) / each;
  job.shared_blocks = (tiles + (each + 1) / 2 - 1) / ((each + 1) / 2);
  launch(stream, "expert gate and up",
         {.grid_x = job.rows * job.used * job.routed_blocks + groups * job.shared_blocks,
          .threads = kGateThreads,
          .shared_bytes = integer_rows_bytes(shared_rows, job.gate.columns)},
         gate_up_kernel(job), job);
  const std::uint32_t down_tiles = (job.down.rows + kOutputs - 1) / kOutputs;
  launch(stream, "expert down",
         {.grid_x = down_tiles < device.multiprocessors ? down_tiles : device.multiprocessors,
          .grid_y = job.rows,
          .threads = slots * parts * 32,
          .shared_bytes = down_bytes},
         parts == 2 ? down_kernel<2>(job) : down_kernel<1>(job), job);
}

}  // namespace ds4::cuda
