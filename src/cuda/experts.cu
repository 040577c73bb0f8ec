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

// One block a row, `parts` neighbouring threads an expert.  An expert's place is the number of
// those before it: larger ones, and of equals those of lower number.
DS4_KERNEL void route(RouteJob job, std::uint32_t parts) {
  DS4_SHARED float score[kExpertsMax];
  DS4_SHARED float biased[kExpertsMax];
  DS4_SHARED std::uint32_t chosen[kExpertsUsedMax];
  wait_for_inputs();
  const std::uint32_t r = blockIdx.x;
  const std::uint32_t e = threadIdx.x / parts;
  const std::uint32_t part = threadIdx.x % parts;
  const std::uint32_t places = blockDim.x / parts;
  float mine = -INFINITY;
  if (e < job.expert_count) {
    const float own = router_score(job.logits[std::size_t{r} * job.expert_count + e]);
    const float value = own + (job.bias == nullptr ? 0.0F : job.bias[e]);
    if (value > mine) mine = value;  // what is not a number counts as the smallest
    if (part == 0) score[e] = own;
  }
  if (part == 0) biased[e] = mine;
  if (job.hash_table != nullptr && e < job.used && part == 0) {
    chosen[e] = static_cast<std::uint32_t>(
        job.hash_table[static_cast<std::size_t>(job.step.rows[r].token) * job.used + e]);
  }
  block_sync();
  if (job.hash_table == nullptr) {
    std::uint32_t place = 0;
    const std::uint32_t end = places / parts * (part + 1);
#pragma unroll 4
    for (std::uint32_t i = places / parts * part; i < end; i += 4) {
      const Float4 v = *reinterpret_cast<const Float4*>(&biased[i]);
      place += v.x > mine || (v.x == mine && i < e) ? 1 : 0;
      place += v.y > mine || (v.y == mine && i + 1 < e) ? 1 : 0;
      place += v.z > mine || (v.z == mine && i + 2 < e) ? 1 : 0;
      place += v.w > mine || (v.w == mine && i + 3 < e) ? 1 : 0;
    }
    for (std::uint32_t mask = 1; mask < parts; mask *= 2)
      place += shuffle_xor(place, static_cast<int>(mask));
    if (part == 0 && e < job.expert_count && place < job.used) chosen[place] = e;
  }
  block_sync();
  if (e >= job.used || part != 0) return;
  float sum = 0;
  for (std::uint32_t k = 0; k < job.used; ++k)
    sum += score[chosen[k]];
  job.ids[std::size_t{r} * job.used + e] = static_cast<std::int32_t>(chosen[e]);
  job.weights[std::size_t{r} * job.used + e] =
      score[chosen[e]] / fmaxf(sum, 0x1p-14F) * job.weight_scale;
}

}  // namespace

void route_rows(Stream& stream, const RouteJob& job) {
  const std::uint32_t places = (job.expert_count + 31) / 32 * 32;
  const std::uint32_t parts = places <= 256 ? 4 : 2;
  launch(stream, "routing", {.grid_x = job.step.count, .threads = places * parts}, route, job,
         parts);
}

}  // namespace ds4::cuda
