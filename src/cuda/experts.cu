// Routing, and what the experts of many rows need besides their products.
//
//   choice: top experts by sqrt(softplus(logit)) + bias, weights from the unbiased scores
//   mid[e] = silu(min(W1 x, limit)) * clamp(W3 x, limit) * weight        out = sum over e of W2
//   mid[e]
//
// Pairs of row and slot are sorted by expert (one block), products go through tile_product, and the
// kernels here do the sorting, the activation and the combination in slot order.
#include "cuda/activate.cuh"
#include "cuda/codecs.cuh"
#include "cuda/experts.h"
#include "cuda/reduce.cuh"

namespace ds4::cuda {

namespace {

DS4_DEVICE float router_score(float logit) {
  if (logit > 20.0F) return sqrtf(logit);
  return sqrtf(logit < -20.0F ? expf(logit) : log1pf(expf(logit)));
}

// One block a row, one thread an expert.  An expert's place is the number of those before it:
// larger ones, and of equals those of lower number.
DS4_KERNEL void route(RouteJob job) {
  DS4_SHARED float score[kExpertsMax];
  DS4_SHARED float biased[kExpertsMax];
  DS4_SHARED std::uint32_t chosen[kExpertsUsedMax];
  wait_for_inputs();
  const std::uint32_t r = blockIdx.x;
  const std::uint32_t e = threadIdx.x;
  float mine = -INFINITY;
  if (e < job.expert_count) {
    score[e] = router_score(job.logits[std::size_t{r} * job.expert_count + e]);
    const float value = score[e] + (job.bias == nullptr ? 0.0F : job.bias[e]);
    if (value > mine) mine = value;  // what is not a number counts as the smallest
  }
  biased[e] = mine;
  if (job.hash_table != nullptr && e < job.used) {
    chosen[e] = static_cast<std::uint32_t>(
        job.hash_table[static_cast<std::size_t>(job.step.rows[r].token) * job.used + e]);
  }
  block_sync();
  if (job.hash_table == nullptr && e < job.expert_count) {
    std::uint32_t place = 0;
#pragma unroll 4
    for (std::uint32_t i = 0; i < blockDim.x; i += 4) {
      const Float4 v = *reinterpret_cast<const Float4*>(&biased[i]);
      place += v.x > mine || (v.x == mine && i < e) ? 1 : 0;
      place += v.y > mine || (v.y == mine && i + 1 < e) ? 1 : 0;
      place += v.z > mine || (v.z == mine && i + 2 < e) ? 1 : 0;
      place += v.w > mine || (v.w == mine && i + 3 < e) ? 1 : 0;
    }
    if (place < job.used) chosen[place] = e;
  }
  block_sync();
  if (e >= job.used) return;
  float sum = 0;
  for (std::uint32_t k = 0; k < job.used; ++k)
    sum += score[chosen[k]];
  job.ids[std::size_t{r} * job.used + e] = static_cast<std::int32_t>(chosen[e]);
  job.weights[std::size_t{r} * job.used + e] =
      score[chosen[e]] / fmaxf(sum, 0x1p-14F) * job.weight_scale;
}

DS4_KERNEL void group(GroupJob job) {
  DS4_SHARED std::uint32_t count[kExpertsMax];
  DS4_SHARED std::uint32_t cursor[kExpertsMax];
  wait_for_inputs();
  for (std::uint32_t e = threadIdx.x; e < kExpertsMax; e += blockDim.x)
    count[e] = 0;
  block_sync();
  const std::uint32_t pairs = job.rows * job.used;
  for (std::uint32_t i = threadIdx.x; i < pairs; i += blockDim.x)
    shared_add(&count[job.ids[i]], 1);
  block_sync();
  if (threadIdx.x == 0) {
    std::uint32_t first = 0;
    std::uint32_t tiles = 0;
    for (std::uint32_t e = 0; e < job.expert_count; ++e) {
      cursor[e] = first;
      for (std::uint32_t done = 0; done < count[e]; done += kExpertTileRows) {
        const std::uint32_t left = count[e] - done;
        job.tiles[tiles++] = {e, first + done, left < kExpertTileRows ? left : kExpertTileRows};
      }
      first += count[e];
    }
    *job.tile_count = tiles;
  }
  block_sync();
  // The order inside an expert's list is free: every pair's result goes to its own place.
  for (std::uint32_t i = threadIdx.x; i < pairs; i += blockDim.x) {
    const std::uint32_t at = shared_add(&cursor[job.ids[i]], 1);
    job.pairs[at] = i / job.used * (job.used + 1) + i % job.used;
  }
}

DS4_KERNEL void activate(std::uint32_t used,
                         std::uint32_t expert_width,
                         float limit,
                         const float* gate,
                         const float* up,
                         const float* weights,
                         std::uint16_t* mid) {
  wait_for_inputs();
  const std::uint32_t pair = blockIdx.y;
  const std::uint32_t slot = pair % (used + 1);
  const float weight = slot < used ? weights[pair / (used + 1) * used + slot] : 1.0F;
  const std::uint32_t c = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (c >= expert_width) return;
  const std::size_t at = std::size_t{pair} * expert_width + c;
  const Float4 g = *reinterpret_cast<const Float4*>(gate + at);
  const Float4 u = *reinterpret_cast<const Float4*>(up + at);
  *reinterpret_cast<Words2*>(mid + at) = {
      pack_half2(activated(g.x, u.x, limit, weight), activated(g.y, u.y, limit, weight)),
      pack_half2(activated(g.z, u.z, limit, weight), activated(g.w, u.w, limit, weight))};
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

void route_rows(Stream& stream, const RouteJob& job) {
  launch(stream, "routing",
         {.grid_x = job.step.count, .threads = (job.expert_count + 31) / 32 * 32}, route, job);
}

void group_by_expert(Stream& stream, const GroupJob& job) {
  launch(stream, "grouping by expert", {.threads = 1024}, group, job);
}

void activate_experts(Stream& stream,
                      std::uint32_t rows,
                      std::uint32_t used,
                      std::uint32_t expert_width,
                      float limit,
                      const float* gate,
                      const float* up,
                      const float* weights,
                      std::uint16_t* mid) {
  DS4_CHECK(rows * (used + 1) <= 65535);
  launch(stream, "expert activation",
         {.grid_x = (expert_width / 4 + 127) / 128, .grid_y = rows * (used + 1), .threads = 128},
         activate, used, expert_width, limit, gate, up, weights, mid);
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
