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

}  // namespace

void route_rows(Stream& stream, const RouteJob& job) {
  launch(stream, "routing",
         {.grid_x = job.step.count, .threads = (job.expert_count + 31) / 32 * 32}, route, job);
}

}  // namespace ds4::cuda
