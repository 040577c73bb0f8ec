// Everything element-wise between a layer's projections and its attention, as one launch of blocks
// with different parts:
//
//   query heads       normalise 512 values, rotate the last 64             block: one head of one
//   row key/value         normalise, rotate, round to a packed row of 584 B    block: one row
//   compressors       softmax per channel over a finished window, norm,    block: one row that
//                     rotate, pack; keep the row's projection              finishes a window
//   index queries     rotate, Hadamard, round to E2M1, weights             block: four heads of one
//   row
//
// Blocks are 128 threads, four values of a 512-vector each.  Everything is f32; rotation angles are
// f32 products with accurate sine and cosine.  A compressed row pools its window (ratio 4: the one
// before as well) from this step's projections where they are new and from the ring where not; when
// a step is short its rows enter the rings here, since nothing that the step reads is overwritten
// (kDirectRowsMax).
#include "cuda/codecs.cuh"
#include "cuda/prepare.h"
#include "cuda/reduce.cuh"
#include "cuda/rows.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 128;

DS4_DEVICE LayerState state_of(const Step& step, std::uint32_t sequence, std::uint32_t layer) {
  return step.states[std::size_t{sequence} * step.layers + layer];
}

DS4_DEVICE float plain_entry(const Matrix& m, std::size_t row, std::uint32_t column) {
  const std::byte* codes = m.codes + row * m.codes_bytes;
  if (m.type == ElementType::kF32) return reinterpret_cast<const float*>(codes)[column];
  const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(codes)[column];
  return m.type == ElementType::kF16 ? half_to_float(bits)
                                     : float_of_bits(static_cast<std::uint32_t>(bits) << 16);
}

// Four neighbouring values of a 512-vector per thread: normalises and rotates them.
DS4_DEVICE void finish_vector(float (&v)[4],
                              const float* norm,
                              float epsilon,
                              const float* frequencies,
                              std::uint32_t position,
                              float* partial) {
  const float square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + v[3] * v[3];
  const float mean = block_sum(square, partial) / static_cast<float>(kHeadDim);
  const float inverse = 1.0F / sqrtf(mean + epsilon);
  const std::uint32_t first = threadIdx.x * 4;
#pragma unroll
  for (std::uint32_t i = 0; i < 4; ++i)
    v[i] = v[i] * inverse * (norm == nullptr ? 1.0F : norm[first + i]);
  if (first < kNopeDim) return;
  const std::uint32_t pair = (first - kNopeDim) / 2;
  rotate(&v[0], &v[1], position, frequencies[pair], 1.0F);
  rotate(&v[2], &v[3], position, frequencies[pair + 1], 1.0F);
}

// Packs a 512-vector, four values per thread, into one attention row.
DS4_DEVICE void pack_row(const float (&v)[4], std::byte* to) {
  float amax = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
#pragma unroll
  for (int mask = 1; mask < 16; mask *= 2)
    amax = fmaxf(amax, shuffle_xor(amax, mask));
  const std::uint32_t first = threadIdx.x * 4;
  if (first >= kNopeDim) {
    const int exponent = scale_exponent(fmaxf(amax, 1e-4F), 1.0F / 32767.0F);
    const float inverse = power_of_two(-exponent);
    std::uint32_t code[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      code[i] =
          static_cast<std::uint32_t>(static_cast<std::int32_t>(rintf(v[i] * inverse))) & 0xFFFF;
    *reinterpret_cast<Words2*>(to + kNopeDim + 8 + (first - kNopeDim) * 2) = {
        code[0] | (code[1] << 16), code[2] | (code[3] << 16)};
    if (threadIdx.x == kThreads - 1) to[kNopeDim + 7] = static_cast<std::byte>(e8m0_code(exponent));
    return;
  }
  const int exponent = scale_exponent(fmaxf(amax, 1e-4F), 1.0F / 448.0F);
  const float inverse = power_of_two(-exponent);
  std::uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    codes |= e4m3_code(v[i] * inverse) << (8 * i);
  *reinterpret_cast<std::uint32_t*>(to + first) = codes;
  if (threadIdx.x % 16 == 0)
    to[kNopeDim + threadIdx.x / 16] = static_cast<std::byte>(e8m0_code(exponent));
}

DS4_DEVICE void load4(const float* from, float (&v)[4]) {
  const Float4 x = *reinterpret_cast<const Float4*>(from);
  v[0] = x.x;
  v[1] = x.y;
  v[2] = x.z;
  v[3] = x.w;
}

DS4_DEVICE void finish_query(const PrepareJob& job,
                             const StepRow& row,
                             std::uint32_t r,
                             std::uint32_t head,
                             float* partial) {
  float* at = job.query + (std::size_t{r} * job.head_count + head) * kHeadDim + threadIdx.x * 4;
  float v[4];
  load4(at, v);
  finish_vector(v, nullptr, job.epsilon, job.frequencies, row.position, partial);
  *reinterpret_cast<Float4*>(at) = {v[0], v[1], v[2], v[3]};
}

DS4_DEVICE void finish_key_value(const PrepareJob& job,
                                 const StepRow& row,
                                 std::uint32_t r,
                                 float* partial) {
  float v[4];
  load4(job.key_value + std::size_t{r} * kHeadDim + threadIdx.x * 4, v);
  finish_vector(v, job.key_value_norm, job.epsilon, job.frequencies, row.position, partial);
  pack_row(v, job.fresh_rows + std::size_t{r} * kRowBytes);
  if (!job.direct) return;
  const LayerState state = state_of(job.step, row.sequence, job.layer);
  pack_row(v, state.window + std::size_t{row.position % job.step.window_capacity} * kRowBytes);
}

// A token's pooled parts: projections of `size` channels, then gate scores, either of this step or
// from the ring; only the former still lack the position term.
struct Pooled {
  const float* projection;
  bool fresh;
};

DS4_DEVICE Pooled pooled_token(const CompressJob& c,
                               const float* ring,
                               std::uint32_t width,
                               const StepRow& row,
                               std::uint32_t ratio,
                               std::uint32_t position) {
  if (position >= row.run_first_position) {
    const std::uint32_t r = row.run_first_row + position - row.run_first_position;
    return {c.fresh + std::size_t{r} * 2 * width, true};
  }
  return {ring + std::size_t{position % frontier_capacity(ratio)} * 2 * width, false};
}

// The value of channel `j` of the window that `row` finishes: softmax of the scores over its
// tokens.
DS4_DEVICE float pool_channel(const CompressJob& c,
                              const float* ring,
                              std::uint32_t size,
                              std::uint32_t width,
                              const StepRow& row,
                              std::uint32_t ratio,
                              std::uint32_t j) {
  const std::uint32_t own = row.position + 1 - ratio;
  const std::uint32_t first = width != size && own > 0 ? own - ratio : own;
  float largest = -INFINITY;
  float sum = 0;
  float weighted = 0;
  for (std::uint32_t p = first; p <= row.position; ++p) {
    const Pooled token = pooled_token(c, ring, width, row, ratio, p);
    const std::uint32_t channel = (width != size && p >= own ? size : 0) + j;
    const float score = token.projection[width + channel] +
                        (token.fresh ? plain_entry(c.ape, p % ratio, channel) : 0.0F);
    const float next = fmaxf(largest, score);
    const float keep = expf(largest - next);
    const float weight = expf(score - next);
    sum = sum * keep + weight;
    weighted = weighted * keep + weight * token.projection[channel];
    largest = next;
  }
  return weighted / sum;
}

// Row r's projections into the ring, the position term added.
DS4_DEVICE void keep_token(const CompressJob& c,
                           float* ring,
                           std::uint32_t width,
                           const StepRow& row,
                           std::uint32_t ratio,
                           std::uint32_t r) {
  const float* from = c.fresh + std::size_t{r} * 2 * width;
  float* to = ring + std::size_t{row.position % frontier_capacity(ratio)} * 2 * width;
  for (std::uint32_t i = threadIdx.x; i < width; i += kThreads) {
    to[i] = from[i];
    to[width + i] = from[width + i] + plain_entry(c.ape, row.position % ratio, i);
  }
}

DS4_DEVICE void compress_row(const PrepareJob& job,
                             const StepRow& row,
                             std::uint32_t r,
                             float* partial) {
  const LayerState state = state_of(job.step, row.sequence, job.layer);
  const std::uint32_t width = job.ratio == 4 ? 2 * kHeadDim : kHeadDim;
  if (job.direct) keep_token(job.rows, state.frontier, width, row, job.ratio, r);
  if ((row.position + 1) % job.ratio != 0) return;
  float v[4];
  for (std::uint32_t i = 0; i < 4; ++i)
    v[i] = pool_channel(job.rows, state.frontier, kHeadDim, width, row, job.ratio,
                        threadIdx.x * 4 + i);
  const std::uint32_t window = row.position / job.ratio;
  finish_vector(v, job.rows.norm, job.epsilon, job.frequencies, window * job.ratio, partial);
  pack_row(v, state.compressed + std::size_t{window} * kRowBytes);
}

DS4_DEVICE void compress_key(const PrepareJob& job, const StepRow& row, std::uint32_t r) {
  const LayerState state = state_of(job.step, row.sequence, job.layer);
  constexpr std::uint32_t kWidth = 2 * kIndexDim;
  if (job.direct) keep_token(job.keys, state.index_frontier, kWidth, row, job.ratio, r);
  if ((row.position + 1) % job.ratio != 0 || threadIdx.x >= 32) return;
  const std::uint32_t lane = threadIdx.x;
  float v[4];
  float square = 0;
  for (std::uint32_t i = 0; i < 4; ++i) {
    v[i] = pool_channel(job.keys, state.index_frontier, kIndexDim, kWidth, row, job.ratio,
                        lane * 4 + i);
    square += v[i] * v[i];
  }
  const float inverse =
      1.0F / sqrtf(warp_sum(square) / static_cast<float>(kIndexDim) + job.epsilon);
  for (std::uint32_t i = 0; i < 4; ++i)
    v[i] = v[i] * inverse * job.keys.norm[lane * 4 + i];
  const std::uint32_t window = row.position / job.ratio;
  if (lane >= 16) {
    const std::uint32_t pair = (lane - 16) * 2;
    rotate(&v[0], &v[1], window * job.ratio, job.frequencies[pair], 1.0F);
    rotate(&v[2], &v[3], window * job.ratio, job.frequencies[pair + 1], 1.0F);
  }
  warp_sync();
  hadamard(v);
  int exponent = 0;
  const std::uint32_t codes = key_codes(v, &exponent);
  reinterpret_cast<std::uint16_t*>(state.key_codes + std::size_t{window} * kKeyCodeBytes)[lane] =
      static_cast<std::uint16_t>(codes);
  if (lane % 8 == 0)
    state.key_scales[std::size_t{window} * kKeyScaleBytes + lane / 8] =
        static_cast<std::byte>(e8m0_code(exponent));
}

// Four heads, one a warp.
DS4_DEVICE void finish_index_query(const PrepareJob& job,
                                   const StepRow& row,
                                   std::uint32_t r,
                                   std::uint32_t group) {
  const std::uint32_t head = group * 4 + threadIdx.x / 32;
  if (head >= job.index_head_count) return;
  const std::uint32_t lane = threadIdx.x % 32;
  float* at =
      job.index_query + (std::size_t{r} * job.index_head_count + head) * kIndexDim + lane * 4;
  float v[4];
  load4(at, v);
  if (lane >= 16) {
    const std::uint32_t pair = (lane - 16) * 2;
    rotate(&v[0], &v[1], row.position, job.frequencies[pair], 1.0F);
    rotate(&v[2], &v[3], row.position, job.frequencies[pair + 1], 1.0F);
  }
  warp_sync();
  hadamard(v);
  int exponent = 0;
  const std::uint32_t codes = key_codes(v, &exponent);
  const float scale = ldexpf(1.0F, exponent);
  *reinterpret_cast<Float4*>(at) = {
      e2m1_value(codes & 15) * scale, e2m1_value((codes >> 4) & 15) * scale,
      e2m1_value((codes >> 8) & 15) * scale, e2m1_value(codes >> 12) * scale};
  if (lane == 0) {
    const float width = static_cast<float>(job.index_head_count * kIndexDim);
    job.index_weights[std::size_t{r} * job.index_head_count + head] *= 1.0F / sqrtf(width);
  }
}

// Blocks of a row, part by part.
struct Parts {
  std::uint32_t query, key_value, compress, index_query;
};
constexpr Parts parts_of(const PrepareJob& job) {
  return {job.with_query ? job.head_count : 0, job.with_key_value ? 1U : 0U,
          !job.with_compress ? 0U
          : job.ratio == 4   ? 2U
                             : 1U,
          job.with_index_query ? (job.index_head_count + 3) / 4 : 0};
}

DS4_KERNEL void prepare(PrepareJob job) {
  DS4_SHARED float partial[32];
  wait_for_inputs();
  const Parts parts = parts_of(job);
  const std::uint32_t r = blockIdx.y;
  const StepRow row = job.step.rows[r];
  std::uint32_t part = blockIdx.x;
  if (part < parts.query) return finish_query(job, row, r, part, partial);
  part -= parts.query;
  if (part < parts.key_value) return finish_key_value(job, row, r, partial);
  part -= parts.key_value;
  if (part < parts.compress) {
    if (part == 0) return compress_row(job, row, r, partial);
    return compress_key(job, row, r);
  }
  finish_index_query(job, row, r, part - parts.compress);
}

// Of a run only its newest rows stay; older ones would be overwritten by rows of the same launch.
DS4_DEVICE bool stays(const StepRow& row, std::uint32_t capacity) {
  return row.position + capacity >= row.run_first_position + row.run_count;
}

DS4_KERNEL void keep_frontier(PrepareJob job) {
  wait_for_inputs();
  const StepRow row = job.step.rows[blockIdx.x];
  if (!stays(row, frontier_capacity(job.ratio))) return;
  const LayerState state = state_of(job.step, row.sequence, job.layer);
  keep_token(job.rows, state.frontier, job.ratio == 4 ? 2 * kHeadDim : kHeadDim, row, job.ratio,
             blockIdx.x);
  if (job.ratio == 4)
    keep_token(job.keys, state.index_frontier, 2 * kIndexDim, row, job.ratio, blockIdx.x);
}

DS4_KERNEL void keep_window(Step step, std::uint32_t layer, const std::byte* fresh_rows) {
  wait_for_inputs();
  const StepRow row = step.rows[blockIdx.x];
  if (!stays(row, step.window_capacity)) return;
  const auto* from =
      reinterpret_cast<const Words2*>(fresh_rows + std::size_t{blockIdx.x} * kRowBytes);
  auto* to =
      reinterpret_cast<Words2*>(state_of(step, row.sequence, layer).window +
                                std::size_t{row.position % step.window_capacity} * kRowBytes);
  for (std::uint32_t i = threadIdx.x; i < kRowBytes / 8; i += blockDim.x)
    to[i] = from[i];
}

}  // namespace

void prepare_attention(Stream& stream, const PrepareJob& job) {
  const Parts parts = parts_of(job);
  const std::uint32_t blocks = parts.query + parts.key_value + parts.compress + parts.index_query;
  launch(stream, "preparing attention",
         {.grid_x = blocks, .grid_y = job.step.count, .threads = kThreads}, prepare, job);
}

void store_frontier(Stream& stream, const PrepareJob& job) {
  launch(stream, "storing the frontier", {.grid_x = job.step.count, .threads = kThreads},
         keep_frontier, job);
}

void store_window(Stream& stream,
                  const Step& step,
                  std::uint32_t layer,
                  const std::byte* fresh_rows) {
  launch(stream, "storing the window", {.grid_x = step.count, .threads = 96}, keep_window, step,
         layer, fresh_rows);
}

}  // namespace ds4::cuda
