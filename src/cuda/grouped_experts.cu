// The experts of many rows: sorting, gated products, combination.
//
//   mid[pair] = silu(min(W1 x, limit)) * clamp(W3 x, limit) * weight      out = sum over slots of
//   W2 mid
//
// group: one block counts the pairs of every expert, cuts each expert's list into tiles and fills
// the lists.  Their order is free, since every pair's results go to places of their own.  The gated
// product is the kernel of tile_product.cuh with gate and up rows side by side in a warp, so that
// the activation happens in registers.
#include "cuda/grouped_experts.h"
#include "cuda/step.h"
#include "cuda/tile_product.cuh"

namespace ds4::cuda {

namespace {

// Of the one block that sorts.
constexpr std::uint32_t kGroupThreads = 1024;

DS4_KERNEL void group(GroupJob job, std::uint32_t tile_rows) {
  DS4_SHARED std::uint32_t count[kExpertsMax];
  DS4_SHARED std::uint32_t first[kExpertsMax];
  DS4_SHARED std::uint32_t first_tile[kExpertsMax];
  wait_for_inputs();
  for (std::uint32_t e = threadIdx.x; e < kExpertsMax; e += blockDim.x)
    count[e] = 0;
  block_sync();
  const std::uint32_t pairs = job.rows * job.used;
  for (std::uint32_t i = threadIdx.x; i < pairs; i += blockDim.x)
    shared_add(&count[job.ids[i]], 1);
  block_sync();
  if (threadIdx.x == 0) {
    std::uint32_t pair = 0;
    std::uint32_t tile = 0;
    for (std::uint32_t e = 0; e < job.expert_count; ++e) {
      first[e] = pair;
      first_tile[e] = tile;
      pair += count[e];
      tile += (count[e] + tile_rows - 1) / tile_rows;
    }
    *job.tile_count = tile;
  }
  block_sync();
  for (std::uint32_t e = threadIdx.x; e < job.expert_count; e += blockDim.x)
    for (std::uint32_t done = 0; done < count[e]; done += tile_rows) {
      const std::uint32_t left = count[e] - done;
      job.tiles[first_tile[e] + done / tile_rows] = {e, first[e] + done,
                                                     left < tile_rows ? left : tile_rows};
    }
  block_sync();
  for (std::uint32_t i = threadIdx.x; i < pairs; i += blockDim.x) {
    const std::uint32_t at = shared_add(&first[job.ids[i]], 1);
    job.pairs[at] = i / job.used * (job.used + 1) + i % job.used;
  }
}

DS4_KERNEL void combine(std::uint32_t slots,
                        std::uint32_t width,
                        const float* expert_out,
                        float* output) {
  wait_for_inputs();
  const std::uint32_t c = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (c >= width) return;
  Float4 sum = {0, 0, 0, 0};
  for (std::uint32_t s = 0; s < slots; ++s) {
    const Float4 v = *reinterpret_cast<const Float4*>(
        expert_out + (std::size_t{blockIdx.y} * slots + s) * width + c);
    sum = {sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w};
  }
  *reinterpret_cast<Float4*>(output + std::size_t{blockIdx.y} * width + c) = sum;
}

}  // namespace

ExpertTiles group_by_expert(Stream& stream, const GroupJob& job) {
  const std::uint32_t pairs = job.rows * job.used;
  const std::uint32_t tile_rows = expert_tile_rows(pairs, job.expert_count);
  launch(stream, "grouping by expert", {.threads = kGroupThreads}, group, job, tile_rows);
  return {.tiles = job.tiles,
          .tile_count = job.tile_count,
          .pairs = job.pairs,
          .tiles_max = pairs / tile_rows + std::min(job.expert_count, pairs),
          .rows = tile_rows};
}

void run_gated_tile_product(Stream& stream, const char* stage, const TileProduct& p) {
  DS4_CHECK(p.w.type == p.up.type);
  switch (p.w.type) {
    case ElementType::kF32:
      return tiles::launch_fitting<ElementType::kF32, true>(stream, stage, p);
    case ElementType::kF16:
      return tiles::launch_fitting<ElementType::kF16, true>(stream, stage, p);
    case ElementType::kBF16:
      return tiles::launch_fitting<ElementType::kBF16, true>(stream, stage, p);
    case ElementType::kQ8_0:
      return tiles::launch_fitting<ElementType::kQ8_0, true>(stream, stage, p);
    case ElementType::kIQ2XXS:
      return tiles::launch_fitting<ElementType::kIQ2XXS, true>(stream, stage, p);
    case ElementType::kMXFP4:
      return tiles::launch_fitting<ElementType::kMXFP4, true>(stream, stage, p);
    case ElementType::kQ4K:
      return tiles::launch_fitting<ElementType::kQ4K, true>(stream, stage, p);
    case ElementType::kQ2K:
      return tiles::launch_fitting<ElementType::kQ2K, true>(stream, stage, p);
    case ElementType::kI32:
      break;
  }
  DS4_CHECK(false);
}

void combine_experts(Stream& stream,
                     std::uint32_t rows,
                     std::uint32_t slots,
                     std::uint32_t width,
                     const float* expert_out,
                     float* output) {
  launch(stream, "combining experts",
         {.grid_x = (width / 4 + 255) / 256, .grid_y = rows, .threads = 256}, combine, slots, width,
         expert_out, output);
}

}  // namespace ds4::cuda
