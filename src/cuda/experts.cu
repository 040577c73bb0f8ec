// Routing and the experts.
//
//   choice: top experts by sqrt(softplus(logit)) + bias, weights from the unbiased scores
//   mid[e] = silu(min(W1 x, limit)) * clamp(W3 x, limit) * weight        out = sum over e of W2
//   mid[e]
//
// Few rows (decode): two launches that read each chosen expert's codes once.  gate_up: a block
// stages x in shared memory, a warp takes 2 outputs of one expert, gate and up together, and writes
// the activated value.  down: a block takes 16 outputs and has one warp per slot; a warp walks the
// outputs four at a time over its expert's part of mid, and the slots' sums meet in shared memory,
// where they are added in slot order.  The shared expert is the last slot of both.
//
// Many rows: pairs are sorted by expert, products go through tile_product, and the kernels here do
// the sorting (one block), the activation and the combination in slot order.
//
// Memory: codes once a (row, expert); x once a block.  Shared: columns * 5 bytes (gate_up), slots *
// expert width * 5 (down).  All sums f32 in an order that does not depend on other rows.
#include "cuda/codecs.cuh"
#include "cuda/experts.h"
#include "cuda/reduce.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kGateOutputs = 32;  // of a block
constexpr std::uint32_t kDownOutputs = 16;  // of a block

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

DS4_DEVICE float activated(float gate, float up, float limit, float weight) {
  const float g = fminf(gate, limit);
  const float u = fminf(fmaxf(up, -limit), limit);
  return g / (1.0F + expf(-g)) * u * weight;
}

// sum += decoded unit * x at the unit's columns
template <class C>
DS4_DEVICE void add_unit(
    const typename C::Raw& raw, std::uint32_t unit, const Grid* grid, const float* x, float& sum) {
  float w[C::kUnit];
  C::decode(raw, unit, grid, w);
#pragma unroll
  for (int s = 0; s < C::kUnit / C::kSegment; ++s) {
    const float* from = x + padded(C::column(unit, s));
#pragma unroll
    for (int i = 0; i < C::kSegment; i += 4) {
      const Float4 v = *reinterpret_cast<const Float4*>(from + i + i / 16 * 4);
      const float* weight = &w[s * C::kSegment + i];
      sum = fmaf(weight[0], v.x, sum);
      sum = fmaf(weight[1], v.y, sum);
      sum = fmaf(weight[2], v.z, sum);
      sum = fmaf(weight[3], v.w, sum);
    }
  }
}

DS4_DEVICE void stage(const float* from, std::uint32_t count, float* to) {
  for (std::uint32_t c = threadIdx.x * 4; c < count; c += blockDim.x * 4)
    *reinterpret_cast<Float4*>(to + padded(c)) = *reinterpret_cast<const Float4*>(from + c);
}

// Stands for a type that the kernel does not know beforehand.  A kernel built for its types needs
// half the registers of one that holds every format.
constexpr ElementType kAnyType = ElementType::kI32;

template <ElementType kRouted, ElementType kShared, class Body>
DS4_DEVICE void with_expert_codec(bool is_shared, ElementType type, const Body& body) {
  if constexpr (kRouted == kAnyType) {
    with_codec(type, body);
  } else {
    if (is_shared) {
      body(Codec<kShared>{});
    } else {
      body(Codec<kRouted>{});
    }
  }
}

// Two outputs of a warp, gate and up: four rows in flight.
template <class C>
DS4_DEVICE void gate_up_pair(const Matrix& gate,
                             const Matrix& up,
                             std::size_t slab,
                             std::uint32_t output,
                             const float* x,
                             const Grid* grid,
                             float (&sum)[4]) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t units = gate.columns / C::kUnit;
  const std::uint32_t second = output + 1 < gate.rows ? output + 1 : output;
#pragma unroll 2
  for (std::uint32_t unit = lane; unit < units; unit += 32) {
    const typename C::Raw raw[4] = {
        C::load(row_codes(gate, slab, output), row_scales(gate, slab, output), gate.columns, unit),
        C::load(row_codes(up, slab, output), row_scales(up, slab, output), up.columns, unit),
        C::load(row_codes(gate, slab, second), row_scales(gate, slab, second), gate.columns, unit),
        C::load(row_codes(up, slab, second), row_scales(up, slab, second), up.columns, unit)};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      add_unit<C>(raw[i], unit, grid, x, sum[i]);
  }
}

template <ElementType kRouted, ElementType kShared>
DS4_KERNEL void DS4_BOUNDS(kThreads, 2) gate_up(ExpertsJob job) {
  DS4_SHARED Grid grid[kGridRows];
  auto* x = reinterpret_cast<float*>(dynamic_shared());
  const std::uint32_t slots = job.used + 1;
  const std::uint32_t r = blockIdx.y / slots;
  const std::uint32_t slot = blockIdx.y % slots;
  const bool is_shared = slot == job.used;
  const Matrix& gate = is_shared ? job.shared_gate : job.gate;
  const Matrix& up = is_shared ? job.shared_up : job.up;
  if (gate.type == ElementType::kIQ2XXS) load_grid(reinterpret_cast<const Grid*>(job.grid), grid);
  wait_for_inputs();
  stage(job.x + std::size_t{r} * gate.columns, gate.columns, x);
  block_sync();
  const std::size_t slab = is_shared ? 0 : static_cast<std::size_t>(job.ids[r * job.used + slot]);
  const float weight = is_shared ? 1.0F : job.weights[r * job.used + slot];
  float* mid = job.mid + std::size_t{blockIdx.y} * gate.rows;
  const std::uint32_t first = blockIdx.x * kGateOutputs;
  for (std::uint32_t o = threadIdx.x / 32 * 2; o < kGateOutputs; o += kThreads / 32 * 2) {
    const std::uint32_t output = first + o;
    if (output >= gate.rows) return;
    float sum[4] = {};
    with_expert_codec<kRouted, kShared>(is_shared, gate.type, [&](auto codec) {
      gate_up_pair<decltype(codec)>(gate, up, slab, output, x, grid, sum);
    });
#pragma unroll
    for (int i = 0; i < 4; ++i)
      sum[i] = warp_sum(sum[i]);
    if (threadIdx.x % 32 != 0) continue;
    mid[output] = activated(sum[0], sum[1], job.limit, weight);
    if (output + 1 < gate.rows) mid[output + 1] = activated(sum[2], sum[3], job.limit, weight);
  }
}

// Four outputs of a warp.
template <class C>
DS4_DEVICE void down_four(const Matrix& m,
                          std::size_t slab,
                          std::uint32_t output,
                          const float* x,
                          const Grid* grid,
                          float (&sum)[4]) {
  const std::uint32_t units = m.columns / C::kUnit;
#pragma unroll 2
  for (std::uint32_t unit = threadIdx.x % 32; unit < units; unit += 32) {
    typename C::Raw raw[4];
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) {
      const std::uint32_t row = output + i < m.rows ? output + i : output;
      raw[i] = C::load(row_codes(m, slab, row), row_scales(m, slab, row), m.columns, unit);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      add_unit<C>(raw[i], unit, grid, x, sum[i]);
  }
}

template <ElementType kRouted, ElementType kShared>
DS4_KERNEL void DS4_BOUNDS((kExpertsUsedMax + 1) * 32, 2) down(ExpertsJob job) {
  DS4_SHARED Grid grid[kGridRows];
  DS4_SHARED float parts[kExpertsUsedMax + 1][kDownOutputs];
  const std::uint32_t r = blockIdx.y;
  const std::uint32_t slot = threadIdx.x / 32;
  const std::uint32_t width = job.down.columns;
  auto* x = reinterpret_cast<float*>(dynamic_shared()) + std::size_t{slot} * padded(width);
  if (job.down.type == ElementType::kIQ2XXS || job.shared_down.type == ElementType::kIQ2XXS)
    load_grid(reinterpret_cast<const Grid*>(job.grid), grid);
  block_sync();
  wait_for_inputs();
  const float* mid = job.mid + (std::size_t{r} * (job.used + 1) + slot) * width;
  for (std::uint32_t c = threadIdx.x % 32 * 4; c < width; c += 128)
    *reinterpret_cast<Float4*>(x + padded(c)) = *reinterpret_cast<const Float4*>(mid + c);
  warp_sync();
  const bool is_shared = slot == job.used;
  const Matrix& m = is_shared ? job.shared_down : job.down;
  const std::size_t slab = is_shared ? 0 : static_cast<std::size_t>(job.ids[r * job.used + slot]);
  const std::uint32_t first = blockIdx.x * kDownOutputs;
  for (std::uint32_t o = 0; o < kDownOutputs; o += 4) {
    float sum[4] = {};
    if (first + o < m.rows) {
      with_expert_codec<kRouted, kShared>(is_shared, m.type, [&](auto codec) {
        down_four<decltype(codec)>(m, slab, first + o, x, grid, sum);
      });
    }
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) {
      const float total = warp_sum(sum[i]);
      if (threadIdx.x % 32 == 0) parts[slot][o + i] = total;
    }
  }
  block_sync();
  const std::uint32_t output = first + threadIdx.x;
  if (threadIdx.x >= kDownOutputs || output >= m.rows) return;
  float total = 0;
  for (std::uint32_t s = 0; s <= job.used; ++s)
    total += parts[s][threadIdx.x];
  job.output[std::size_t{r} * m.rows + output] = total;
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

ExpertsKernel down_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_down.type == kShared) {
    if (job.down.type == ElementType::kQ2K) return down<ElementType::kQ2K, kShared>;
    if (job.down.type == ElementType::kQ4K) return down<ElementType::kQ4K, kShared>;
  }
  return down<kAnyType, kAnyType>;
}

std::size_t padded_bytes(std::uint32_t columns) {
  return (columns + columns / 16 * 4) * sizeof(float);
}

}  // namespace

void route_rows(Stream& stream, const RouteJob& job) {
  launch(stream, "routing", {.grid_x = job.step.count, .threads = 32}, route, job);
}

void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& job) {
  const std::uint32_t slots = job.used + 1;
  const std::size_t down_bytes = slots * padded_bytes(job.down.columns);
  DS4_CHECK(down_bytes + 4096 <= device.shared_bytes_max);
  launch(stream, "expert gate and up",
         {.grid_x = (job.gate.rows + kGateOutputs - 1) / kGateOutputs,
          .grid_y = job.rows * slots,
          .threads = kThreads,
          .shared_bytes = padded_bytes(job.gate.columns)},
         gate_up_kernel(job), job);
  launch(stream, "expert down",
         {.grid_x = (job.down.rows + kDownOutputs - 1) / kDownOutputs,
          .grid_y = job.rows,
          .threads = slots * 32,
          .shared_bytes = down_bytes},
         down_kernel(job), job);
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
