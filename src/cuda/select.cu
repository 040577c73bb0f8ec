// The indexer: scores of all visible keys, and the exact top k of them.
//
//   score[c] = sum over heads h of weight[h] * max(0, query[h] . key[c])       c < visible
//
// score_rows: a block has the row's queries of up to 64 heads as f16 fragments in registers, one
// copy a warp (exact: they are E2M1 values times a power of two), and walks keys 8 at a time per
// warp.  A lane reads the 16 bytes of one key that carry its scale block of 32 dimensions, so
// decoding is a byte permute and one multiplication a pair; the dimensions of a matrix step are
// those the lane holds, queries being loaded in the same order.  Products and sums are f32. Memory:
// 68 bytes a key once a row; 4 bytes of score written.
//
// select_rows: one block a row.  Four rounds of an 8-bit histogram over the order-preserving bits
// of the scores find the k-th largest; then one walk in ascending order takes everything above it
// and the first of its equals, so that of equal scores the lower row wins and the list is
// ascending.
#include "cuda/reduce.cuh"
#include "cuda/rows.cuh"
#include "cuda/select.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kScoreThreads = 128;
constexpr std::uint32_t kSelectThreads = 512;
constexpr std::uint32_t kHeadTiles = kIndexHeadsMax / 16;

DS4_DEVICE std::uint32_t visible_rows(const StepRow& row) {
  return (row.position + 1) / 4;
}

// f16 pairs of the four E2M1 codes in the low 16 bits of `codes`, times `scale`.
DS4_DEVICE void decode_codes(std::uint32_t codes,
                             std::uint32_t scale,
                             std::uint32_t* first,
                             std::uint32_t* second) {
  // High bytes of 0, 0.5, 1, 1.5, 2, 3, 4, 6 in f16; the low bytes are zero.
  const std::uint32_t high = pick_bytes(0x3E3C3800U, 0x46444240U, codes & 0x7777U);
  const std::uint32_t signs = ((codes & 0x8U) << 4) | ((codes & 0x80U) << 8) |
                              ((codes & 0x800U) << 12) | ((codes & 0x8000U) << 16);
  const std::uint32_t bytes = high | signs;
  *first = multiply_half2(pick_bytes(bytes, 0, 0x1404), scale);
  *second = multiply_half2(pick_bytes(bytes, 0, 0x3424), scale);
}

// Query fragments: matrix row = head, matrix column pairs = the lane's dimensions 4 * step + {0, 1}
// and {2, 3} of its 32.
DS4_DEVICE void load_queries(const float* query,
                             std::uint32_t heads,
                             std::uint32_t (&a)[kHeadTiles][8][4]) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t first_dim = lane % 4 * 32;
#pragma unroll
  for (std::uint32_t m = 0; m < kHeadTiles; ++m)
#pragma unroll
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint32_t head = m * 16 + i * 8 + lane / 4;
#pragma unroll
      for (std::uint32_t s = 0; s < 8; ++s) {
        Float4 v = {0, 0, 0, 0};
        if (head < heads)
          v = *reinterpret_cast<const Float4*>(query + head * kIndexDim + first_dim + s * 4);
        a[m][s][i] = pack_half2(v.x, v.y);
        a[m][s][2 + i] = pack_half2(v.z, v.w);
      }
    }
}

DS4_KERNEL void score_rows(SelectJob job) {
  wait_for_inputs();
  const std::uint32_t r = job.first_row + blockIdx.y;
  const StepRow row = job.step.rows[r];
  const std::uint32_t visible = visible_rows(row);
  if (visible <= job.top_k) return;
  const LayerState state = job.step.states[std::size_t{row.sequence} * job.step.layers + job.layer];
  const std::uint32_t warps = gridDim.x * (kScoreThreads / 32);
  const std::uint32_t warp = blockIdx.x * (kScoreThreads / 32) + threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  if (warp * 8 >= visible) return;
  std::uint32_t a[kHeadTiles][8][4];
  load_queries(job.query + std::size_t{r} * job.head_count * kIndexDim, job.head_count, a);
  float weight[kHeadTiles][2];
  for (std::uint32_t m = 0; m < kHeadTiles; ++m)
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint32_t head = m * 16 + i * 8 + lane / 4;
      weight[m][i] =
          head < job.head_count ? job.weights[std::size_t{r} * job.head_count + head] : 0.0F;
    }
  float* scores = job.scores + std::size_t{blockIdx.y} * job.visible_max;
  for (std::uint32_t first = warp * 8; first < visible; first += warps * 8) {
    const std::uint32_t key = first + lane / 4 < visible ? first + lane / 4 : visible - 1;
    const Words4 q = reinterpret_cast<const Words4*>(state.key_codes +
                                                     std::size_t{key} * kKeyCodeBytes)[lane % 4];
    const auto exponent =
        static_cast<int>(state.key_scales[std::size_t{key} * kKeyScaleBytes + lane % 4]) - 127;
    const float scale_value = ldexpf(1.0F, exponent);
    const std::uint32_t scale = pack_half2(scale_value, scale_value);
    const std::uint32_t words[4] = {q.x, q.y, q.z, q.w};
    float dots[kHeadTiles][4] = {};
#pragma unroll
    for (std::uint32_t s = 0; s < 8; ++s) {
      std::uint32_t b[2];
      decode_codes((words[s / 2] >> (16 * (s % 2))) & 0xFFFF, scale, &b[0], &b[1]);
#pragma unroll
      for (std::uint32_t m = 0; m < kHeadTiles; ++m)
        multiply_tile(dots[m], a[m][s], b);
    }
    // A lane has heads lane / 4 (+ 8) of each tile for the keys 2 * (lane % 4) + {0, 1}.
    float total[2] = {0, 0};
#pragma unroll
    for (std::uint32_t m = 0; m < kHeadTiles; ++m)
#pragma unroll
      for (std::uint32_t i = 0; i < 4; ++i)
        total[i % 2] += weight[m][i / 2] * fmaxf(0.0F, dots[m][i]);
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2) {
      total[0] += shuffle_xor(total[0], mask);
      total[1] += shuffle_xor(total[1], mask);
    }
    if (lane < 4) {
      const std::uint32_t c = first + lane * 2;
      if (c < visible) scores[c] = total[0];
      if (c + 1 < visible) scores[c + 1] = total[1];
    }
  }
}

// Bits whose unsigned order is the order of the floats; -0 counts as 0.
DS4_DEVICE std::uint32_t ordered(float value) {
  const std::uint32_t bits = bits_of_float(value == 0.0F ? 0.0F : value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// Exclusive sum over the block of per-thread counts; `total` gets the sum of all.
DS4_DEVICE std::uint32_t block_offset(bool taken,
                                      std::uint32_t* warp_counts,
                                      std::uint32_t* total) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t bits = ballot(taken);
  block_sync();
  if (lane == 0) warp_counts[threadIdx.x / 32] = static_cast<std::uint32_t>(count_bits(bits));
  block_sync();
  std::uint32_t before = 0;
  std::uint32_t all = 0;
  for (std::uint32_t w = 0; w < blockDim.x / 32; ++w) {
    if (w < threadIdx.x / 32) before += warp_counts[w];
    all += warp_counts[w];
  }
  *total = all;
  return before + static_cast<std::uint32_t>(count_bits(bits & ((1U << lane) - 1)));
}

// The k-th largest of the scores, as ordered bits; `*wanted` becomes how many equal to it to take.
DS4_DEVICE std::uint32_t find_threshold(const float* scores,
                                        std::uint32_t visible,
                                        std::uint32_t* wanted,
                                        std::uint32_t* histogram,
                                        std::uint32_t* shared) {
  std::uint32_t prefix = 0;
  std::uint32_t left = *wanted;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (std::uint32_t i = threadIdx.x; i < 256; i += blockDim.x)
      histogram[i] = 0;
    block_sync();
    for (std::uint32_t c = threadIdx.x; c < visible; c += blockDim.x) {
      const std::uint32_t bits = ordered(scores[c]);
      if (shift == 24 || (bits >> (shift + 8)) == (prefix >> (shift + 8)))
        shared_add(&histogram[(bits >> shift) & 255], 1);
    }
    block_sync();
    if (threadIdx.x == 0) {
      std::uint32_t bucket = 255;
      std::uint32_t need = left;
      while (histogram[bucket] < need) {
        need -= histogram[bucket];
        --bucket;
      }
      shared[0] = bucket;
      shared[1] = need;
    }
    block_sync();
    prefix |= shared[0] << shift;
    left = shared[1];
    block_sync();
  }
  *wanted = left;
  return prefix;
}

DS4_KERNEL void select_rows(SelectJob job) {
  DS4_SHARED std::uint32_t histogram[256];
  DS4_SHARED std::uint32_t shared[2];
  DS4_SHARED std::uint32_t warp_counts[kSelectThreads / 32];
  wait_for_inputs();
  const std::uint32_t r = job.first_row + blockIdx.x;
  const std::uint32_t visible = visible_rows(job.step.rows[r]);
  if (visible <= job.top_k) return;
  const float* scores = job.scores + std::size_t{blockIdx.x} * job.visible_max;
  std::uint32_t equals = job.top_k;
  const std::uint32_t threshold = find_threshold(scores, visible, &equals, histogram, shared);
  std::int32_t* out = job.selection + std::size_t{r} * job.top_k;
  std::uint32_t written = 0;
  std::uint32_t equals_seen = 0;
  for (std::uint32_t base = 0; base < visible; base += kSelectThreads) {
    const std::uint32_t c = base + threadIdx.x;
    const std::uint32_t bits = c < visible ? ordered(scores[c]) : 0;
    const bool equal = c < visible && bits == threshold;
    std::uint32_t total = 0;
    const std::uint32_t rank = block_offset(equal, warp_counts, &total);
    const bool taken = c < visible && (bits > threshold || (equal && equals_seen + rank < equals));
    equals_seen += total;
    const std::uint32_t at = block_offset(taken, warp_counts, &total);
    if (taken) out[written + at] = static_cast<std::int32_t>(c);
    written += total;
  }
}

}  // namespace

void score_keys(Stream& stream, const SelectJob& job, std::uint32_t key_blocks) {
  launch(stream, "scoring index keys",
         {.grid_x = key_blocks, .grid_y = job.row_count, .threads = kScoreThreads}, score_rows,
         job);
}

void select_top(Stream& stream, const SelectJob& job) {
  launch(stream, "selecting rows", {.grid_x = job.row_count, .threads = kSelectThreads},
         select_rows, job);
}

}  // namespace ds4::cuda
