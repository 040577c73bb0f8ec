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
// of the scores find the k-th largest; then everything above it and the first of its equals are
// taken, each warp from a run of rows, so that of equal scores the lower row wins and the list is
// ascending.
#include "cuda/reduce.cuh"
#include "cuda/rows.cuh"
#include "cuda/select.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kScoreThreads = 128;
constexpr std::uint32_t kSelectThreads = 1024;
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

// The bucket that holds the `wanted`-th largest, and how many of its own are wanted, by one warp: a
// lane has eight buckets, lane 0 the largest.
DS4_DEVICE void find_bucket(const std::uint32_t* histogram,
                            std::uint32_t wanted,
                            std::uint32_t* found) {
  const std::uint32_t lane = threadIdx.x;
  std::uint32_t count[8];
  std::uint32_t sum = 0;
#pragma unroll
  for (std::uint32_t i = 0; i < 8; ++i) {
    count[i] = histogram[255 - lane * 8 - i];
    sum += count[i];
  }
  std::uint32_t upto = sum;  // of this lane and those before it
#pragma unroll
  for (std::uint32_t step = 1; step < 32; step *= 2) {
    const std::uint32_t other =
        shuffle_from(upto, static_cast<int>(lane >= step ? lane - step : lane));
    if (lane >= step) upto += other;
  }
  std::uint32_t before = upto - sum;
  if (wanted <= before || wanted > upto) return;
#pragma unroll
  for (std::uint32_t i = 0; i < 8; ++i) {
    if (wanted > before && wanted <= before + count[i]) {
      found[0] = 255 - lane * 8 - i;
      found[1] = wanted - before;
    }
    before += count[i];
  }
}

// Shared memory of a selection.  Counters have copies, so that lanes whose scores are alike, as
// most are in their upper bits, do not queue for one.
struct Selection {
  static constexpr std::uint32_t kCopies = 8;
  std::uint32_t copies[256][kCopies];
  std::uint32_t histogram[256];
  std::uint32_t found[2];
  std::uint32_t above[kSelectThreads / 32];
  std::uint32_t equal[kSelectThreads / 32];
};

// The k-th largest of the scores, as ordered bits; `*wanted` becomes how many equal to it to take.
DS4_DEVICE std::uint32_t find_threshold(const float* scores,
                                        std::uint32_t visible,
                                        std::uint32_t* wanted,
                                        Selection& s) {
  std::uint32_t prefix = 0;
  std::uint32_t left = *wanted;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (std::uint32_t i = threadIdx.x; i < 256 * Selection::kCopies; i += blockDim.x)
      s.copies[i / Selection::kCopies][i % Selection::kCopies] = 0;
    block_sync();
    for (std::uint32_t c = threadIdx.x; c < visible; c += blockDim.x) {
      const std::uint32_t bits = ordered(scores[c]);
      if (shift == 24 || (bits >> (shift + 8)) == (prefix >> (shift + 8)))
        shared_add(&s.copies[(bits >> shift) & 255][threadIdx.x % Selection::kCopies], 1);
    }
    block_sync();
    for (std::uint32_t i = threadIdx.x; i < 256; i += blockDim.x) {
      std::uint32_t sum = 0;
#pragma unroll
      for (std::uint32_t k = 0; k < Selection::kCopies; ++k)
        sum += s.copies[i][k];
      s.histogram[i] = sum;
    }
    block_sync();
    if (threadIdx.x < 32) find_bucket(s.histogram, left, s.found);
    block_sync();
    prefix |= s.found[0] << shift;
    left = s.found[1];
  }
  *wanted = left;
  return prefix;
}

DS4_KERNEL void select_rows(SelectJob job) {
  DS4_SHARED Selection s;
  wait_for_inputs();
  const std::uint32_t r = job.first_row + blockIdx.x;
  const std::uint32_t visible = visible_rows(job.step.rows[r]);
  if (visible <= job.top_k) return;
  const float* scores = job.scores + std::size_t{blockIdx.x} * job.visible_max;
  std::uint32_t equals = job.top_k;
  const std::uint32_t threshold = find_threshold(scores, visible, &equals, s);
  // Every warp takes a run of rows: it counts them, then writes after what the warps before it
  // have.
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t warps = blockDim.x / 32;
  const std::uint32_t run = (visible + warps * 32 - 1) / (warps * 32) * 32;
  const std::uint32_t first = warp * run;
  const std::uint32_t end = first + run < visible ? first + run : visible;
  std::uint32_t above = 0;
  std::uint32_t equal = 0;
  for (std::uint32_t base = first; base < end; base += 32) {
    const std::uint32_t bits = base + lane < end ? ordered(scores[base + lane]) : 0;
    above += static_cast<std::uint32_t>(count_bits(ballot(bits > threshold)));
    equal += static_cast<std::uint32_t>(count_bits(ballot(base + lane < end && bits == threshold)));
  }
  if (lane == 0) {
    s.above[warp] = above;
    s.equal[warp] = equal;
  }
  block_sync();
  above = 0;
  equal = 0;
  for (std::uint32_t w = 0; w < warp; ++w) {
    above += s.above[w];
    equal += s.equal[w];
  }
  std::uint32_t written = above + (equal < equals ? equal : equals);
  std::int32_t* out = job.selection + std::size_t{r} * job.top_k;
  const std::uint32_t lower = (1U << lane) - 1;
  for (std::uint32_t base = first; base < end; base += 32) {
    const std::uint32_t bits = base + lane < end ? ordered(scores[base + lane]) : 0;
    const bool same = base + lane < end && bits == threshold;
    const std::uint32_t same_bits = ballot(same);
    const std::uint32_t rank = equal + static_cast<std::uint32_t>(count_bits(same_bits & lower));
    const bool taken = bits > threshold || (same && rank < equals);
    const std::uint32_t taken_bits = ballot(taken);
    if (taken)
      out[written + static_cast<std::uint32_t>(count_bits(taken_bits & lower))] =
          static_cast<std::int32_t>(base + lane);
    equal += static_cast<std::uint32_t>(count_bits(same_bits));
    written += static_cast<std::uint32_t>(count_bits(taken_bits));
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
