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

// Sums over every `parts`-th block of columns from `part` on.  The first block's codes are asked
// for before `stage` brings the input to shared memory.
template <class C, class Stage>
DS4_DEVICE void sum_tile(const TileRows& rows,
                         std::uint32_t columns,
                         std::uint32_t part,
                         std::uint32_t parts,
                         const IntegerRows& x,
                         std::uint32_t x_rows,
                         const Grid* grid,
                         const Stage& stage,
                         float (&sums)[1][2]) {
  WeightBlock<C> next;
  if (part < x.blocks) rows.load(next, columns, part);
  stage();
  for (std::uint32_t block = part; block < x.blocks; block += parts) {
    WeightBlock<C> now = next;
    if (block + parts < x.blocks) rows.load(next, columns, block + parts);
    add_block<C, 1>(now, x, x_rows, block, grid, sums);
  }
}

template <ElementType kRouted, ElementType kShared>
DS4_KERNEL void DS4_BOUNDS(kGateThreads, 2) gate_up(ExpertsJob job) {
  DS4_SHARED Grid grid[kGridRows];
  DS4_SHARED float partial[2][kGateParts][kOutputs][kSharedRows];
  const bool is_shared = blockIdx.y >= job.rows * job.used;
  const Matrix& gate = is_shared ? job.shared_gate : job.gate;
  const Matrix& up = is_shared ? job.shared_up : job.up;
  if (gate.type == ElementType::kIQ2XXS) load_grid(reinterpret_cast<const Grid*>(job.grid), grid);
  wait_for_inputs();
  std::uint32_t first_row = blockIdx.y / job.used;
  std::uint32_t rows = 1;
  std::uint32_t slot = blockIdx.y % job.used;
  std::size_t slab = 0;
  float weight = 1.0F;
  if (is_shared) {
    first_row = (blockIdx.y - job.rows * job.used) * kSharedRows;
    rows = job.rows - first_row < kSharedRows ? job.rows - first_row : kSharedRows;
    slot = job.used;
  } else {
    slab = static_cast<std::size_t>(job.ids[blockIdx.y]);
    weight = job.weights[blockIdx.y];
  }
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t half = warp / kGateParts;
  const std::uint32_t first = blockIdx.x * kOutputs;
  const IntegerRows x(dynamic_shared(), rows, gate.columns);
  const TileRows tile(half == 0 ? gate : up, slab, first);
  const auto stage = [&] {
    for (std::uint32_t r = 0; r < rows; ++r)
      put_row(x, r, job.x + std::size_t{first_row + r} * gate.columns, gate.columns, nullptr, 0);
    block_sync();
  };
  float sums[1][2] = {};
  with_expert_codec<kRouted, kShared>(is_shared, gate.type, [&](auto codec) {
    sum_tile<decltype(codec)>(tile, gate.columns, warp % kGateParts, kGateParts, x, rows, grid,
                              stage, sums);
  });
#pragma unroll
  for (std::uint32_t i = 0; i < 2; ++i)
    partial[half][warp % kGateParts][lane / 4 + i * 8][lane % 4] = sums[0][i];
  block_sync();
  const std::uint32_t o = threadIdx.x % kOutputs;
  const std::uint32_t r = threadIdx.x / kOutputs;
  if (r >= rows || first + o >= gate.rows) return;
  float total[2] = {0, 0};
  for (std::uint32_t p = 0; p < kGateParts; ++p) {
    total[0] += partial[0][p][o][r];
    total[1] += partial[1][p][o][r];
  }
  job.mid[(std::size_t{first_row + r} * (job.used + 1) + slot) * gate.rows + first + o] =
      activated(total[0], total[1], job.limit, weight);
}

template <ElementType kRouted, ElementType kShared, std::uint32_t kDownParts>
DS4_KERNEL void DS4_BOUNDS(kDownThreadsMax, 1) down(ExpertsJob job) {
  DS4_SHARED Grid grid[kGridRows];
  DS4_SHARED float partial[(kExpertsUsedMax + 1) * kDownParts][kOutputs];
  const std::uint32_t r = blockIdx.y;
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t slot = warp / kDownParts;
  const std::uint32_t columns = job.down.columns;
  if (job.down.type == ElementType::kIQ2XXS || job.shared_down.type == ElementType::kIQ2XXS)
    load_grid(reinterpret_cast<const Grid*>(job.grid), grid);
  wait_for_inputs();
  const bool is_shared = slot == job.used;
  const Matrix& m = is_shared ? job.shared_down : job.down;
  const std::size_t slab = is_shared ? 0 : static_cast<std::size_t>(job.ids[r * job.used + slot]);
  const std::uint32_t first = blockIdx.x * kOutputs;
  const TileRows tile(m, slab, first);
  const IntegerRows x(dynamic_shared() + slot * integer_rows_bytes(1, columns), 1, columns);
  const float* mid = job.mid + (std::size_t{r} * (job.used + 1) + slot) * columns;
  const auto stage = [&] {
    // A slot's warps bring in its row.  All warps meet here, though some from the shared
    // expert's code and some from the routed experts'.
    put_row_by(x, 0, mid, columns, warp % kDownParts, kDownParts);
    block_sync();
  };
  float sums[1][2] = {};
  with_expert_codec<kRouted, kShared>(is_shared, m.type, [&](auto codec) {
    sum_tile<decltype(codec)>(tile, columns, warp % kDownParts, kDownParts, x, 1, grid, stage,
                              sums);
  });
  if (lane % 4 == 0) {
    partial[warp][lane / 4] = sums[0][0];
    partial[warp][lane / 4 + 8] = sums[0][1];
  }
  block_sync();
  const std::uint32_t output = first + threadIdx.x;
  if (threadIdx.x >= kOutputs || output >= m.rows) return;
  float total = 0;
  for (std::uint32_t p = 0; p < (job.used + 1) * kDownParts; ++p)
    total += partial[p][threadIdx.x];
  job.output[std::size_t{r} * m.rows + output] = total;
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

void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& job) {
  const std::uint32_t slots = job.used + 1;
  const std::size_t down_bytes = slots * integer_rows_bytes(1, job.down.columns);
  DS4_CHECK(down_bytes + 8192 <= device.shared_bytes_max);
  const std::uint32_t parts = slots * 64 <= kDownThreadsMax ? 2 : 1;
  const std::uint32_t shared_rows = job.rows < kSharedRows ? job.rows : kSharedRows;
  launch(stream, "expert gate and up",
         {.grid_x = (job.gate.rows + kOutputs - 1) / kOutputs,
          .grid_y = job.rows * job.used + (job.rows + kSharedRows - 1) / kSharedRows,
          .threads = kGateThreads,
          .shared_bytes = integer_rows_bytes(shared_rows, job.gate.columns)},
         gate_up_kernel(job), job);
  launch(stream, "expert down",
         {.grid_x = (job.down.rows + kOutputs - 1) / kOutputs,
          .grid_y = job.rows,
          .threads = slots * parts * 32,
          .shared_bytes = down_bytes},
         parts == 2 ? down_kernel<2>(job) : down_kernel<1>(job), job);
}

}  // namespace ds4::cuda
