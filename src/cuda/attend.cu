// Attention over packed rows on the tensor cores.  All heads share one key/value row, so a row's
// attention is a matrix product with the heads as the 16-row operand:
//
//   score[h][i] = query[h] . row[i] / sqrt(512)         p = softmax with the head's sink
//   out[h] = sum over i of p[h][i] * row[i]             then rotated back by the row's position
//
// Visible rows in order: the window (this step's rows from `fresh_rows`, older ones from the ring),
// then compressed rows: all of them, or the selection.
//
// Who does what: a block of 8 warps takes one row of the step, kTiles * 16 heads and every
// splits-th tile of 64 visible rows.  A tile is unpacked once to f16 in shared memory (exact: E4M3
// times a power of two, and f16): one warp a row, a lane 16 values.  Where blocks have many tiles,
// the next one's packed rows come to shared memory while a tile is worked on.  Scores: warp (m, s)
// makes heads of tile m by 8 * kTiles rows.  The softmax runs online per head; then warp (m, s)
// adds its 64 * kTiles channels of P * rows, transposed matrix loads giving the values.  Shared:
// (64 + 16 kTiles) rows of 1040 bytes, scores, probabilities: 90 KiB (kTiles 1), 197 with the rows
// ahead (4).
//
// Where the card has them (kGroup) two warpgroups do the same with their own instructions: the one
// makes scores of the first 32 rows and the first 256 channels, the other the rest.  Operands lie
// in shared memory in the order that these want; sums are in the same registers.
//
// With splits, blocks leave unnormalised parts that a second launch adds in split order.  Which
// tile goes to which split follows from the row's own position, never from the batch.
#include "cuda/attend.h"
#include "cuda/integer_dot.cuh"
#include "cuda/reduce.cuh"
#include "cuda/rows.cuh"
#include "cuda/tile_product.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kTile = kAttendTileRows;
constexpr std::uint32_t kPitch = kHeadDim + 8;     // halves of a row in shared memory
constexpr std::uint32_t kScorePitch = kTile + 4;   // floats
constexpr std::uint32_t kWeightPitch = kTile + 8;  // halves
constexpr float kScale = 0.044194173824159216F;    // 1 / sqrt(512)

// Rows, queries and probabilities as f16, in the order that load_tiles() likes: rows are padded so
// that eight of them fall in different banks.
template <std::uint32_t kTiles, bool kGroup>
struct Operands {
  std::uint16_t rows[kTile][kPitch];
  std::uint16_t query[kTiles * 16][kPitch];
  std::uint16_t weights[kTiles * 16][kWeightPitch];

  // Eight channels from `c`, a multiple of 8, on; four of a query.
  DS4_DEVICE std::uint16_t* row(std::uint32_t i, std::uint32_t c) { return &rows[i][c]; }
  DS4_DEVICE std::uint16_t* head(std::uint32_t h, std::uint32_t c) { return &query[h][c]; }
  DS4_DEVICE std::uint16_t* weight(std::uint32_t h, std::uint32_t i) { return &weights[h][i]; }
};

// The same in the order of warpgroup instructions (describe_rows()): blocks of 64 channels.
inline constexpr std::uint32_t kBlock = 64;
template <>
struct Operands<4, true> {
  alignas(1024) std::uint16_t rows[kHeadDim / kBlock][kTile][kBlock];
  alignas(1024) std::uint16_t query[kHeadDim / kBlock][64][kBlock];
  alignas(1024) std::uint16_t weights[64][kTile];

  static DS4_DEVICE std::uint32_t place(std::uint32_t row, std::uint32_t c) {
    return ((c / 8) ^ (row % 8)) * 8 + c % 8;
  }
  DS4_DEVICE std::uint16_t* row(std::uint32_t i, std::uint32_t c) {
    return &rows[c / kBlock][i][place(i, c % kBlock)];
  }
  DS4_DEVICE std::uint16_t* head(std::uint32_t h, std::uint32_t c) {
    return &query[c / kBlock][h][place(h, c % kBlock)];
  }
  DS4_DEVICE std::uint16_t* weight(std::uint32_t h, std::uint32_t i) {
    return &weights[h][place(h, i)];
  }
};

template <std::uint32_t kTiles, bool kGroup>
struct Shared : Operands<kTiles, kGroup> {
  float scores[kTiles * 16][kScorePitch];
  float largest[kTiles * 16];
  float sum[kTiles * 16];
  float keep[kTiles * 16];
  // Of the row's position: cosine and sine of every pair of the rotated channels.
  float turns[kRopeDim / 2][2];
};

// The next tile, packed, behind the rest where a block has room for it (AttendJob::ahead).
using PackedTile = std::byte[kTile][kRowBytes];

struct Visible {
  std::uint32_t window_first, window_count, total;
  bool selected;
};

DS4_DEVICE Visible visible_rows(const AttendJob& job, const StepRow& row) {
  Visible v{};
  v.window_count = row.position + 1 < job.step.window ? row.position + 1 : job.step.window;
  v.window_first = row.position + 1 - v.window_count;
  std::uint32_t compressed = job.ratio == 0 ? 0 : (row.position + 1) / job.ratio;
  if (job.ratio == 4 && compressed > job.top_k) {
    compressed = job.top_k;
    v.selected = true;
  }
  v.total = v.window_count + compressed;
  return v;
}

DS4_DEVICE const std::byte* row_at(const AttendJob& job,
                                   const StepRow& row,
                                   std::uint32_t r,
                                   const Visible& v,
                                   const LayerState& state,
                                   std::uint32_t index) {
  if (index >= v.window_count) {
    std::uint32_t number = index - v.window_count;
    if (v.selected)
      number = static_cast<std::uint32_t>(job.selection[std::size_t{r} * job.top_k + number]);
    return state.compressed + std::size_t{number} * kRowBytes;
  }
  const std::uint32_t position = v.window_first + index;
  if (position >= row.run_first_position) {
    const std::uint32_t fresh = row.run_first_row + position - row.run_first_position;
    return job.fresh_rows + std::size_t{fresh} * kRowBytes;
  }
  return state.window + std::size_t{position % job.step.window_capacity} * kRowBytes;
}

// Two f16 of two E4M3 codes (bits 0..7 and 8..15), short of a factor 2^8.
DS4_DEVICE std::uint32_t halves_of_codes(std::uint32_t codes) {
  const std::uint32_t spread = pick_bytes(codes, 0, 0x1404);  // code 0 in byte 1, code 1 in byte 3
  return (spread & 0x80008000U) | ((spread & 0x7F007F00U) >> 1);
}

// One packed row to row `i` of the tile as f16, by a warp: 16 channels a lane.
template <class S>
DS4_DEVICE void unpack_row(const std::byte* from, std::uint32_t i, S& s) {
  const std::uint32_t lane = threadIdx.x % 32;
  std::uint32_t pairs[8];
  if (lane < 28) {
    const auto* codes = reinterpret_cast<const Words2*>(from + lane * 16);
    const Words2 a = codes[0];
    const Words2 b = codes[1];
    const auto exponent = static_cast<int>(from[kNopeDim + lane / 4]) - 127;
    const float scale_value = power_of_two(exponent + 8);
    const std::uint32_t scale = pack_half2(scale_value, scale_value);
    const std::uint32_t words[4] = {a.x, a.y, b.x, b.y};
#pragma unroll
    for (int k = 0; k < 8; ++k)
      pairs[k] = multiply_half2(halves_of_codes((words[k / 2] >> (16 * (k % 2))) & 0xFFFF), scale);
  } else {
    const auto* values = reinterpret_cast<const Words2*>(from + kNopeDim + 8 + (lane - 28) * 32);
    const float scale = power_of_two(static_cast<int>(from[kNopeDim + 7]) - 127);
    const auto pair_of = [scale](std::uint32_t codes) {
      return pack_half2(static_cast<float>(static_cast<std::int16_t>(codes & 0xFFFF)) * scale,
                        static_cast<float>(static_cast<std::int16_t>(codes >> 16)) * scale);
    };
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const Words2 v = values[k];
      pairs[2 * k] = pair_of(v.x);
      pairs[2 * k + 1] = pair_of(v.y);
    }
  }
  *reinterpret_cast<Words4*>(s.row(i, lane * 16)) = {pairs[0], pairs[1], pairs[2], pairs[3]};
  *reinterpret_cast<Words4*>(s.row(i, lane * 16 + 8)) = {pairs[4], pairs[5], pairs[6], pairs[7]};
}

// A head's query to f16 by a warp, normalised and rotated first where it is raw: lane l has values
// 4 * l + 128 * k .. 4 * l + 128 * k + 3.
template <class S>
DS4_DEVICE void load_head(const AttendJob& job, const float* from, std::uint32_t h, S& s) {
  const std::uint32_t lane = threadIdx.x % 32;
  Float4 v[4];
#pragma unroll
  for (std::uint32_t k = 0; k < 4; ++k)
    v[k] = *reinterpret_cast<const Float4*>(from + lane * 4 + k * 128);
  float inverse = 1.0F;
  if (job.raw_query) {
    float square = 0;
#pragma unroll
    for (std::uint32_t k = 0; k < 4; ++k)
      square += v[k].x * v[k].x + v[k].y * v[k].y + v[k].z * v[k].z + v[k].w * v[k].w;
    inverse = 1.0F / sqrtf(warp_sum(square) / static_cast<float>(kHeadDim) + job.epsilon);
    if (lane >= 16) {
      const float(*turn)[2] = &s.turns[(lane - 16) * 2];
      v[3] = {v[3].x * turn[0][0] - v[3].y * turn[0][1], v[3].x * turn[0][1] + v[3].y * turn[0][0],
              v[3].z * turn[1][0] - v[3].w * turn[1][1], v[3].z * turn[1][1] + v[3].w * turn[1][0]};
    }
  }
#pragma unroll
  for (std::uint32_t k = 0; k < 4; ++k)
    *reinterpret_cast<Words2*>(s.head(h, lane * 4 + k * 128)) = {
        pack_half2(v[k].x * inverse, v[k].y * inverse),
        pack_half2(v[k].z * inverse, v[k].w * inverse)};
}

template <std::uint32_t kTiles, class S>
DS4_DEVICE void load_query(
    const AttendJob& job, const StepRow& row, std::uint32_t r, std::uint32_t first_head, S& s) {
  if (threadIdx.x < kRopeDim / 2) {
    float* turn = s.turns[threadIdx.x];
    sine_cosine(static_cast<float>(row.position) * job.frequencies[threadIdx.x], &turn[1],
                &turn[0]);
  }
  for (std::uint32_t h = threadIdx.x; h < kTiles * 16; h += kThreads) {
    s.largest[h] = -INFINITY;
    s.sum[h] = 0;
  }
  block_sync();
  for (std::uint32_t h = threadIdx.x / 32; h < kTiles * 16; h += kThreads / 32) {
    // Heads past the last repeat it; nobody writes their results.
    const std::uint32_t wanted = first_head + h;
    const std::uint32_t head = wanted < job.head_count ? wanted : job.head_count - 1;
    load_head(job, job.query + (std::size_t{r} * job.head_count + head) * kHeadDim, h, s);
  }
}

// Holds sums in place between instructions that run in the background.
template <std::uint32_t kCount>
DS4_DEVICE void fence_all(float (&sums)[kCount][4]) {
#pragma unroll
  for (std::uint32_t n = 0; n < kCount; ++n)
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i)
      group_fence(sums[n][i]);
}

// Scores of the tile: warp (m, part) makes 16 heads by 8 * kTiles rows.
template <std::uint32_t kTiles>
DS4_DEVICE void multiply_scores(Shared<kTiles, false>& s, float (&dots)[kTiles][4]) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t m = threadIdx.x / 32 % kTiles;
  const std::uint32_t first_row = threadIdx.x / 32 / kTiles * (8 * kTiles);
  const std::uint16_t* a_row = &s.query[m * 16 + lane % 16][lane / 16 * 8];
#pragma unroll 4
  for (std::uint32_t c = 0; c < kHeadDim; c += 32) {
    std::uint32_t a[2][4];
    load_tiles(a[0], a_row + c);
    load_tiles(a[1], a_row + c + 16);
#pragma unroll
    for (std::uint32_t n = 0; n < kTiles; ++n) {
      // Columns c .. c + 31 of eight rows: two matrix steps.
      std::uint32_t b[4];
      load_tiles(b, &s.rows[first_row + n * 8 + lane % 8][c + lane / 8 * 8]);
      const std::uint32_t b0[2] = {b[0], b[1]};
      const std::uint32_t b1[2] = {b[2], b[3]};
      multiply_tile(dots[n], a[0], b0);
      multiply_tile(dots[n], a[1], b1);
    }
  }
}

// The same by warpgroups.
DS4_DEVICE void multiply_scores(Shared<4, true>& s, float (&dots)[4][4]) {
  const std::uint32_t first_row = threadIdx.x / 128 * 32;
  fence_all(dots);
  group_begin();
#pragma unroll
  for (std::uint32_t block = 0; block < kHeadDim / kBlock; ++block)
#pragma unroll
    for (std::uint32_t step = 0; step < kBlock / 16; ++step)
      group_multiply_shared<0>(dots, describe_rows(&s.query[block][0][0], step),
                               describe_rows(&s.rows[block][first_row][0], step));
  group_commit();
  group_wait<0>();
  fence_all(dots);
}

template <std::uint32_t kTiles, bool kGroup>
DS4_DEVICE void score_tile(Shared<kTiles, kGroup>& s) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t m = threadIdx.x / 32 % kTiles;
  const std::uint32_t first_row = threadIdx.x / 32 / kTiles * (8 * kTiles);
  float dots[kTiles][4] = {};
  multiply_scores(s, dots);
#pragma unroll
  for (std::uint32_t n = 0; n < kTiles; ++n)
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i)
      s.scores[m * 16 + lane / 4 + i / 2 * 8][first_row + n * 8 + lane % 4 * 2 + i % 2] =
          dots[n][i] * kScale;
}

// Probabilities of the tile, short of the final sum; a warp takes whole heads.
template <std::uint32_t kTiles, bool kGroup>
DS4_DEVICE void weigh_tile(Shared<kTiles, kGroup>& s, std::uint32_t count) {
  const std::uint32_t lane = threadIdx.x % 32;
  for (std::uint32_t h = threadIdx.x / 32; h < kTiles * 16; h += kThreads / 32) {
    const float a = lane < count ? s.scores[h][lane] : -INFINITY;
    const float b = lane + 32 < count ? s.scores[h][lane + 32] : -INFINITY;
    const float before = s.largest[h];
    const float largest = fmaxf(before, warp_max(fmaxf(a, b)));
    const float pa = expf(a - largest);
    const float pb = expf(b - largest);
    const float sum = warp_sum(pa + pb);
    *s.weight(h, lane) = float_to_half(pa);
    *s.weight(h, lane + 32) = float_to_half(pb);
    warp_sync();
    if (lane == 0) {
      const float keep = expf(before - largest);
      s.keep[h] = keep;
      s.sum[h] = s.sum[h] * keep + sum;
      s.largest[h] = largest;
    }
  }
}

// out[m heads][64 * kTiles channels of the warp] += weights * rows
template <std::uint32_t kTiles>
DS4_DEVICE void multiply_values(Shared<kTiles, false>& s, float (&out)[8 * kTiles][4]) {
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t m = warp % kTiles;
  const std::uint32_t first_channel = warp / kTiles * (64 * kTiles);
#pragma unroll
  for (std::uint32_t k = 0; k < kTile; k += 16) {
    std::uint32_t a[4];
    load_tiles(a, &s.weights[m * 16 + lane % 16][k + lane / 16 * 8]);
#pragma unroll
    for (std::uint32_t n = 0; n < 8 * kTiles; n += 2) {
      std::uint32_t b[4];
      load_tiles_transposed(b, &s.rows[k + lane % 16][first_channel + n * 8 + lane / 16 * 8]);
      const std::uint32_t b0[2] = {b[0], b[1]};
      const std::uint32_t b1[2] = {b[2], b[3]};
      multiply_tile(out[n], a, b0);
      multiply_tile(out[n + 1], a, b1);
    }
  }
}

// The same by warpgroups, each half of the channels.
DS4_DEVICE void multiply_values(Shared<4, true>& s, float (&out)[32][4]) {
  const std::uint32_t first_block = threadIdx.x / 128 * 4;
  fence_all(out);
  group_begin();
#pragma unroll
  for (std::uint32_t step = 0; step < kTile / 16; ++step)
    group_multiply_shared<1>(out, describe_rows(&s.weights[0][0], step),
                             describe_columns(&s.rows[first_block][0][0], step, sizeof s.rows[0]));
  group_commit();
  group_wait<0>();
  fence_all(out);
}

template <std::uint32_t kTiles, bool kGroup>
DS4_DEVICE void add_tile(Shared<kTiles, kGroup>& s, float (&out)[8 * kTiles][4]) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t m = threadIdx.x / 32 % kTiles;
  const float keep_low = s.keep[m * 16 + lane / 4];
  const float keep_high = s.keep[m * 16 + lane / 4 + 8];
#pragma unroll
  for (std::uint32_t n = 0; n < 8 * kTiles; ++n) {
    out[n][0] *= keep_low;
    out[n][1] *= keep_low;
    out[n][2] *= keep_high;
    out[n][3] *= keep_high;
  }
  multiply_values(s, out);
}

// Two neighbouring channels of a finished head.
DS4_DEVICE void write_channels(const AttendJob& job, std::size_t at, float a, float b) {
  if (job.heads_rounded != nullptr) {
    reinterpret_cast<std::uint32_t*>(
        job.heads_rounded)[operand_pair(static_cast<std::uint32_t>(at / 2))] = pack_half2(a, b);
  } else if (job.heads != nullptr) {
    job.heads[at] = a;
    job.heads[at + 1] = b;
  }
}

// The block's result: final heads, or a part of them.
template <std::uint32_t kTiles, class S>
DS4_DEVICE void write_heads(const AttendJob& job,
                            std::uint32_t r,
                            std::uint32_t first_head,
                            const S& s,
                            float (&out)[8 * kTiles][4]) {
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t first_channel = warp / kTiles * (64 * kTiles);
#pragma unroll
  for (std::uint32_t half = 0; half < 2; ++half) {
    const std::uint32_t h = warp % kTiles * 16 + lane / 4 + half * 8;
    const std::uint32_t head = first_head + h;
    if (head >= job.head_count) continue;
    float scale = 1.0F;
    std::size_t at = (std::size_t{r} * job.head_count + head) * kHeadDim;
    if (job.splits == 1) {
      const float largest = fmaxf(s.largest[h], job.sinks[head]);
      const float keep = expf(s.largest[h] - largest);
      scale = keep / (s.sum[h] * keep + expf(job.sinks[head] - largest));
    } else {
      const std::size_t part = (std::size_t{r} * job.splits + blockIdx.x) * job.head_count + head;
      at = part * kHeadDim;
      if (first_channel == 0 && lane % 4 == 0) {
        job.part_sums[part * 2] = s.largest[h];
        job.part_sums[part * 2 + 1] = s.sum[h];
      }
    }
#pragma unroll
    for (std::uint32_t n = 0; n < 8 * kTiles; ++n) {
      const std::uint32_t c = first_channel + n * 8 + lane % 4 * 2;
      const float a = out[n][half * 2] * scale;
      const float b = out[n][half * 2 + 1] * scale;
      if (job.splits != 1) {
        job.part_values[at + c] = a;
        job.part_values[at + c + 1] = b;
      } else if (c < kNopeDim) {
        write_channels(job, at + c, a, b);
      } else {
        const float* turn = s.turns[(c - kNopeDim) / 2];
        write_channels(job, at + c, a * turn[0] + b * turn[1], b * turn[0] - a * turn[1]);
      }
    }
  }
}

// Matrix instructions that read shared memory want it aligned to 1024 bytes.
constexpr std::size_t kGroupAlignment = 1024;
template <std::uint32_t kTiles, bool kGroup>
DS4_DEVICE Shared<kTiles, kGroup>& shared_memory() {
  std::byte* memory = dynamic_shared();
  if constexpr (kGroup) memory += (0 - shared_address(memory)) % kGroupAlignment;
  return *reinterpret_cast<Shared<kTiles, kGroup>*>(memory);
}

// The tile from visible row `first` on to shared memory in the background, a warp eight rows.  Rows
// past the end repeat the last one: their weights are zero, and shared memory stays finite.
DS4_DEVICE void fetch_tile(const AttendJob& job,
                           const StepRow& row,
                           std::uint32_t r,
                           const Visible& visible,
                           const LayerState& state,
                           std::uint32_t first,
                           PackedTile& packed) {
  constexpr std::uint32_t kWarpRows = kTile / (kThreads / 32);
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t first_row = threadIdx.x / 32 * kWarpRows;
  if (job.ahead && first < visible.total) {
    std::uint32_t index = first + first_row + lane % kWarpRows;
    if (index >= visible.total) index = visible.total - 1;
    const auto mine = reinterpret_cast<std::uintptr_t>(row_at(job, row, r, visible, state, index));
#pragma unroll
    for (std::uint32_t i = 0; i < kWarpRows; ++i) {
      const auto* from =
          reinterpret_cast<const std::byte*>(shuffle_from(mine, static_cast<int>(i)));
      for (std::uint32_t c = lane * 8; c < kRowBytes; c += 256)
        copy_async_8(&packed[first_row + i][c], from + c);
    }
  }
  copy_async_commit();
}

// A part that sees no row: its values are never read.
DS4_DEVICE void write_empty_part(const AttendJob& job,
                                 std::uint32_t r,
                                 std::uint32_t first_head,
                                 std::uint32_t heads) {
  const std::uint32_t head = first_head + threadIdx.x;
  if (threadIdx.x >= heads || head >= job.head_count) return;
  const std::size_t part = (std::size_t{r} * job.splits + blockIdx.x) * job.head_count + head;
  job.part_sums[part * 2] = -INFINITY;
  job.part_sums[part * 2 + 1] = 0;
}

template <std::uint32_t kTiles, bool kGroup>
DS4_KERNEL void DS4_BOUNDS(kThreads, 1) attend(AttendJob job) {
  auto& s = shared_memory<kTiles, kGroup>();
  auto& packed = *reinterpret_cast<PackedTile*>(&s + 1);
  wait_for_inputs();
  const std::uint32_t r = blockIdx.z;
  const std::uint32_t first_head = blockIdx.y * kTiles * 16;
  const StepRow row = job.step.rows[r];
  const Visible visible = visible_rows(job, row);
  const LayerState state = job.step.states[std::size_t{row.sequence} * job.step.layers + job.layer];
  if (job.splits != 1 && blockIdx.x * kTile >= visible.total)
    return write_empty_part(job, r, first_head, kTiles * 16);
  fetch_tile(job, row, r, visible, state, blockIdx.x * kTile, packed);
  load_query<kTiles>(job, row, r, first_head, s);
  float out[8 * kTiles][4] = {};
  for (std::uint32_t first = blockIdx.x * kTile; first < visible.total;
       first += gridDim.x * kTile) {
    const std::uint32_t count = visible.total - first < kTile ? visible.total - first : kTile;
    copy_async_wait<0>();
    block_sync();  // the tile before is no longer read, the next one is there
#pragma unroll 2
    for (std::uint32_t i = threadIdx.x / 32; i < kTile; i += kThreads / 32) {
      const std::uint32_t index = first + (i < count ? i : count - 1);
      unpack_row(job.ahead ? packed[i] : row_at(job, row, r, visible, state, index), i, s);
    }
    if constexpr (kGroup) publish_shared();
    block_sync();
    fetch_tile(job, row, r, visible, state, first + gridDim.x * kTile, packed);
    score_tile(s);
    block_sync();
    weigh_tile(s, count);
    if constexpr (kGroup) publish_shared();
    block_sync();
    add_tile(s, out);
  }
  block_sync();
  write_heads<kTiles>(job, r, first_head, s, out);
}

// Adds the parts of one head of one row: two warps, a thread 8 channels.
DS4_KERNEL void add_parts(AttendJob job) {
  wait_for_inputs();
  const std::uint32_t head = blockIdx.x;
  const std::uint32_t r = blockIdx.y;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::size_t first = std::size_t{r} * job.splits * job.head_count + head;
  // Lane p holds part p's largest score and sum.
  static_assert(kAttendSplitsMax <= 32);
  const std::size_t mine = (first + std::size_t{lane} * job.head_count) * 2;
  const bool real = lane < job.splits;
  const float part_largest = real ? job.part_sums[mine] : -INFINITY;
  const float part_sum = real ? job.part_sums[mine + 1] : 0.0F;
  const float largest = fmaxf(job.sinks[head], warp_max(part_largest));
  const float keep = expf(part_largest - largest);
  const float sum = expf(job.sinks[head] - largest) + warp_sum(part_sum * keep);
  const std::uint32_t c = threadIdx.x * 8;
  float v[8] = {};
  // Parts that see rows come first.
  const auto parts = static_cast<std::uint32_t>(count_bits(ballot(part_sum > 0)));
#pragma unroll 8
  for (std::uint32_t p = 0; p < parts; ++p) {
    const float weight = shuffle_from(keep, static_cast<int>(p));
    float x[8];
    load8(job.part_values + (first + std::size_t{p} * job.head_count) * kHeadDim, kHeadDim, c, x);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      v[i] += weight * x[i];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    v[i] /= sum;
  if (c >= kNopeDim) {
    const std::uint32_t position = job.step.rows[r].position;
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i)
      rotate(&v[2 * i], &v[2 * i + 1], position, job.frequencies[(c - kNopeDim) / 2 + i], -1.0F);
  }
  const std::size_t at = (std::size_t{r} * job.head_count + head) * kHeadDim + c;
#pragma unroll
  for (std::uint32_t i = 0; i < 8; i += 2)
    write_channels(job, at + i, v[i], v[i + 1]);
  if (job.heads_integers == nullptr) return;
  const std::uint32_t group = head / job.group_heads;
  const IntegerRows to =
      row_integers(job.heads_integers, r * (job.head_count / job.group_heads) + group,
                   job.group_heads * kHeadDim);
  put_integers(to, 0, (head % job.group_heads * kHeadDim + c) / 256, v);
}

template <std::uint32_t kTiles, bool kGroup>
constexpr std::size_t shared_bytes() {
  return sizeof(Shared<kTiles, kGroup>) + (kGroup ? kGroupAlignment : 0);
}

template <std::uint32_t kTiles, bool kGroup>
void launch_attend(Stream& stream, const DeviceInfo& device, AttendJob job) {
  job.ahead = shared_bytes<kTiles, kGroup>() + sizeof(PackedTile) <= device.shared_bytes_max;
  launch(stream, "attending",
         {.grid_x = job.splits,
          .grid_y = (job.head_count + kTiles * 16 - 1) / (kTiles * 16),
          .grid_z = job.step.count,
          .threads = kThreads,
          .shared_bytes = shared_bytes<kTiles, kGroup>() + (job.ahead ? sizeof(PackedTile) : 0)},
         attend<kTiles, kGroup>, job);
}

// From so many rows on blocks of 64 heads, which unpack a row once, keep the card busy.
constexpr std::uint32_t kWideRows = 17;

void launch_wide(Stream& stream, const DeviceInfo& device, const AttendJob& job) {
  if constexpr (kWarpgroups) {
    if (has_warpgroups() && !job.portable && job.splits == 1)
      return launch_attend<4, true>(stream, device, job);
  }
  launch_attend<4, false>(stream, device, job);
}

}  // namespace

void attend_rows(Stream& stream, const DeviceInfo& device, const AttendJob& job) {
  if (job.head_count > 16 && (job.splits == 1 || job.step.count >= kWideRows) &&
      shared_bytes<4, false>() <= device.shared_bytes_max) {
    launch_wide(stream, device, job);
  } else {
    launch_attend<1, false>(stream, device, job);
  }
  if (job.splits == 1) return;
  launch(stream, "joining attention parts",
         {.grid_x = job.head_count, .grid_y = job.step.count, .threads = kHeadDim / 8}, add_parts,
         job);
}

}  // namespace ds4::cuda
