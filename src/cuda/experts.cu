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

// One warp a row.
DS4_KERNEL void route(RouteJob job) {
  constexpr std::uint32_t kPerLane = kExpertsMax / 32;
  wait_for_inputs();
  const std::uint32_t r = blockIdx.x;
  const std::uint32_t lane = threadIdx.x;
  float score[kPerLane];
  float biased[kPerLane];
#pragma unroll
  for (std::uint32_t i = 0; i < kPerLane; ++i) {
    const std::uint32_t e = i * 32 + lane;
    const bool real = e < job.expert_count;
    score[i] = real ? router_score(job.logits[std::size_t{r} * job.expert_count + e]) : 0.0F;
    biased[i] = real ? score[i] + (job.bias == nullptr ? 0.0F : job.bias[e]) : -INFINITY;
  }
  std::int32_t chosen[kExpertsUsedMax] = {};
  float chosen_score[kExpertsUsedMax] = {};
#pragma unroll
  for (std::uint32_t k = 0; k < kExpertsUsedMax; ++k) {
    if (k >= job.used) break;
    std::uint32_t best = 0xFFFFFFFFU;
    if (job.hash_table != nullptr) {
      best = static_cast<std::uint32_t>(
          job.hash_table[static_cast<std::size_t>(job.step.rows[r].token) * job.used + k]);
    } else {
      float best_value = -INFINITY;
#pragma unroll
      for (std::uint32_t i = 0; i < kPerLane; ++i) {
        if (biased[i] > best_value) {
          best_value = biased[i];
          best = i * 32 + lane;
        }
      }
      for (int mask = 16; mask != 0; mask /= 2) {
        const float other_value = shuffle_xor(best_value, mask);
        const std::uint32_t other = shuffle_xor(best, mask);
        if (other_value > best_value || (other_value == best_value && other < best)) {
          best_value = other_value;
          best = other;
        }
      }
      // Only non-finite logits leave nothing to choose.
      if (best == 0xFFFFFFFFU) best = k;
    }
    float mine = 0;
#pragma unroll
    for (std::uint32_t i = 0; i < kPerLane; ++i)
      if (i == best / 32 && lane == best % 32) {
        mine = score[i];
        biased[i] = -INFINITY;
      }
    chosen[k] = static_cast<std::int32_t>(best);
    chosen_score[k] = shuffle_from(mine, static_cast<int>(best % 32));
  }
  float sum = 0;
#pragma unroll
  for (std::uint32_t k = 0; k < kExpertsUsedMax; ++k)
    if (k < job.used) sum += chosen_score[k];
  if (lane != 0) return;
#pragma unroll
  for (std::uint32_t k = 0; k < kExpertsUsedMax; ++k) {
    if (k >= job.used) break;
    job.ids[std::size_t{r} * job.used + k] = chosen[k];
    job.weights[std::size_t{r} * job.used + k] =
        chosen_score[k] / fmaxf(sum, 0x1p-14F) * job.weight_scale;
  }
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
  launch(stream, "routing", {.grid_x = job.step.count, .threads = 32}, route, job);
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
