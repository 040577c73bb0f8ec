// The hyper-connection streams: embedding, expand, mixer products, reduce and normalise.
//
//   mixes[j] = rms(streams)^-1 * sum over k of fn[j][k] * streams[k]        24 outputs, 16384
//   inputs gates, combination matrix by sigmoid, softmax and Sinkhorn;  reduced = sum of gate *
//   stream
//
// Two launches a sublayer boundary.  mix_chunks: a block takes 128 channels of all four streams of
// kRows rows, adds what the sublayer before left (so the streams are read and written once a
// boundary), and sums its share of the 24 products and of the squares; warps own outputs.
// reduce_rows: two blocks a row add the parts; one makes the gates, collapses and normalises, a
// thread 8 channels, the other goes on to Sinkhorn, 16 lanes for the 16 entries.
//
// Memory: 16 bytes a channel read and written, 786 KB of mixer weights a boundary.  All sums are
// f32 in an order that depends on the width alone.
#include "cuda/codecs.cuh"
#include "cuda/integer_dot.cuh"
#include "cuda/reduce.cuh"
#include "cuda/streams.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;

constexpr std::uint32_t kReduceThreads = 512;

DS4_DEVICE float gate_of(float x) {
  return 1.0F / (1.0F + expf(-x));
}

DS4_KERNEL void embed(
    Step step, Matrix table, const std::byte* magnitudes, std::uint32_t copies, float* out) {
  DS4_SHARED CodebookMemory<1> book_memory;
  const Codebook book = book_memory.view();
  if (table.type == ElementType::kIQ2XXS) {
    load_codebook(magnitudes, book_memory);
    block_sync();
  }
  wait_for_inputs();
  const std::uint32_t r = blockIdx.y;
  const auto token = static_cast<std::size_t>(step.rows[r].token);
  float* to = out + std::size_t{r} * copies * table.columns;
  with_codec(table.type, [&](auto codec) {
    using C = decltype(codec);
    const std::uint32_t unit = blockIdx.x * blockDim.x + threadIdx.x;
    const bool real = unit * C::kUnit < table.columns;
    typename C::Unit codes = C::load(row_codes(table, 0, token), row_scales(table, 0, token),
                                     table.columns, real ? unit : unit % 4);
    if constexpr (C::kQuantised) C::finish(codes);
    if (!real) return;
#pragma unroll
    for (int s = 0; s < C::kSegments; ++s) {
      float w[8];
      C::decode(codes, s, &book, w);
      for (std::uint32_t copy = 0; copy < copies; ++copy)
        for (std::uint32_t i = 0; i < 8; ++i)
          to[copy * table.columns + C::column(unit, s) + i] = w[i];
    }
  });
}

// New values of one channel of all streams.
DS4_DEVICE void expand_channel(const float* mix,
                               float output,
                               const float (&old)[kStreams],
                               float (&next)[kStreams]) {
#pragma unroll
  for (std::uint32_t to = 0; to < kStreams; ++to) {
    float sum = mix[to] * output;
#pragma unroll
    for (std::uint32_t from = 0; from < kStreams; ++from)
      sum += mix[kStreams + from * kStreams + to] * old[from];
    next[to] = sum;
  }
}

DS4_DEVICE float plain_value(const Matrix& m, std::size_t index) {
  if (m.type == ElementType::kF32) return reinterpret_cast<const float*>(m.codes)[index];
  const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(m.codes)[index];
  return m.type == ElementType::kF16 ? half_to_float(bits)
                                     : float_of_bits(static_cast<std::uint32_t>(bits) << 16);
}

// Four neighbouring mixer weights.
DS4_DEVICE Float4 plain_values(const Matrix& m, std::size_t index) {
  if (m.type != ElementType::kF16) {
    return {plain_value(m, index), plain_value(m, index + 1), plain_value(m, index + 2),
            plain_value(m, index + 3)};
  }
  const Words2 q = *reinterpret_cast<const Words2*>(m.codes + index * 2);
  return {half_to_float(static_cast<std::uint16_t>(q.x & 0xFFFF)),
          half_to_float(static_cast<std::uint16_t>(q.x >> 16)),
          half_to_float(static_cast<std::uint16_t>(q.y & 0xFFFF)),
          half_to_float(static_cast<std::uint16_t>(q.y >> 16))};
}

// Loads the chunk of every stream of the block's rows, expanded when an output waits, into `x`.
template <std::uint32_t kRows>
DS4_DEVICE void load_chunk(const MixJob& job,
                           std::uint32_t first_channel,
                           float (*x)[kStreams][kMixChannels]) {
  for (std::uint32_t i = threadIdx.x; i < kRows * kMixChannels; i += kThreads) {
    const std::uint32_t k = i / kMixChannels;
    const std::uint32_t c = i % kMixChannels;
    const std::uint32_t index = blockIdx.y * kRows + k;
    const bool real = index < job.rows && first_channel + c < job.width;
    float value[kStreams] = {};
    if (real) {
      const std::size_t r = job.row_indices == nullptr ? index : job.row_indices[index];
      float* from = job.streams + r * kStreams * job.width + first_channel + c;
      for (std::uint32_t s = 0; s < kStreams; ++s)
        value[s] = from[std::size_t{s} * job.width];
      if (job.output != nullptr) {
        float next[kStreams];
        expand_channel(job.mix + r * (kStreams + kStreams * kStreams),
                       job.output[r * job.width + first_channel + c], value, next);
        for (std::uint32_t s = 0; s < kStreams; ++s) {
          value[s] = next[s];
          from[std::size_t{s} * job.width] = next[s];
        }
      }
    }
    for (std::uint32_t s = 0; s < kStreams; ++s)
      x[k][s][c] = value[s];
  }
}

template <std::uint32_t kRows>
DS4_KERNEL void mix_chunks(MixJob job) {
  constexpr std::uint32_t kWarps = kThreads / 32;
  constexpr std::uint32_t kMine = kMixes / kWarps;  // outputs of a warp
  DS4_SHARED float x[kRows][kStreams][kMixChannels];
  const std::uint32_t first_channel = blockIdx.x * kMixChannels;
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t c = threadIdx.x % 32 * 4;
  // Weights depend on no launch before this one: they are on their way before its inputs are.
  Float4 w[kMine][kStreams];
#pragma unroll
  for (std::uint32_t i = 0; i < kMine; ++i)
#pragma unroll
    for (std::uint32_t s = 0; s < kStreams; ++s) {
      const std::uint32_t j = warp + i * kWarps;
      w[i][s] = {0, 0, 0, 0};
      if (first_channel + c < job.width && j < job.fn.rows)
        w[i][s] = plain_values(job.fn, std::size_t{j} * job.fn.columns +
                                           std::size_t{s} * job.width + first_channel + c);
    }
  wait_for_inputs();
  load_chunk<kRows>(job, first_channel, x);
  block_sync();
#pragma unroll
  for (std::uint32_t k = 0; k < kRows; ++k) {
    float sum[kMine] = {};
    float square = 0;
#pragma unroll
    for (std::uint32_t s = 0; s < kStreams; ++s) {
      const Float4 v = *reinterpret_cast<const Float4*>(&x[k][s][c]);
      square += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
#pragma unroll
      for (std::uint32_t i = 0; i < kMine; ++i)
        sum[i] += w[i][s].x * v.x + w[i][s].y * v.y + w[i][s].z * v.z + w[i][s].w * v.w;
    }
    const std::uint32_t index = blockIdx.y * kRows + k;
    float* partial = job.partial + (std::size_t{index} * gridDim.x + blockIdx.x) * (kMixes + 1);
    const bool writes = threadIdx.x % 32 == 0 && index < job.rows;
#pragma unroll
    for (std::uint32_t i = 0; i < kMine; ++i) {
      const float total = warp_sum(sum[i]);
      if (writes && warp + i * kWarps < job.fn.rows) partial[warp + i * kWarps] = total;
    }
    if (warp != kWarps - 1) continue;
    const float total = warp_sum(square);
    if (writes) partial[job.fn.rows] = total;
  }
}

// Sinkhorn over the 4 x 4 matrix in lanes 0..15 of a warp (lane = source * 4 + destination); the
// other lanes hold a copy, so that every lane takes part in the shuffles.
DS4_DEVICE float combine_entry(float logit, float epsilon, std::uint32_t iterations) {
  const auto over_destinations = [](float v) {
    v += shuffle_xor(v, 1);
    return v + shuffle_xor(v, 2);
  };
  const auto over_sources = [](float v) {
    v += shuffle_xor(v, 4);
    return v + shuffle_xor(v, 8);
  };
  float largest = fmaxf(logit, shuffle_xor(logit, 1));
  largest = fmaxf(largest, shuffle_xor(largest, 2));
  float value = expf(logit - largest);
  value = value / over_destinations(value) + epsilon;
  value = value / (over_sources(value) + epsilon);
  for (std::uint32_t i = 1; i < iterations; ++i) {
    value = value / (over_destinations(value) + epsilon);
    value = value / (over_sources(value) + epsilon);
  }
  return value;
}

// Mixer outputs of a row from their parts, and 1 / rms of its streams.
DS4_DEVICE float add_partials(const ReduceJob& job, std::uint32_t chunks, float* mixes) {
  const std::uint32_t lane = threadIdx.x % 32;
  const float* partial = job.partial + std::size_t{blockIdx.x} * chunks * (kMixes + 1);
  const std::uint32_t outputs = job.mix == nullptr ? kStreams : kMixes;
#pragma unroll 2
  for (std::uint32_t j = threadIdx.x / 32; j <= outputs; j += kReduceThreads / 32) {
    float sum = 0;
    for (std::uint32_t c = lane; c < chunks; c += 32)
      sum += partial[c * (kMixes + 1) + j];
    sum = warp_sum(sum);
    if (lane == 0) mixes[j] = sum;
  }
  block_sync();
  const float mean = mixes[outputs] / static_cast<float>(kStreams * job.width);
  return 1.0F / sqrtf(mean + job.norm_epsilon);
}

// How the sublayer's output will be added: by blocks of their own, beside those that collapse.
DS4_DEVICE void make_mix(const ReduceJob& job, std::size_t r, std::uint32_t chunks, float* mixes) {
  const float inverse_rms = add_partials(job, chunks, mixes);
  if (threadIdx.x >= 32) return;
  const std::uint32_t lane = threadIdx.x;
  float* mix = job.mix + r * (kStreams + kStreams * kStreams);
  if (lane < kStreams) {
    const float logit =
        mixes[kStreams + lane] * inverse_rms * job.scale[1] + job.base[kStreams + lane];
    mix[lane] = 2.0F * gate_of(logit);
  }
  const std::uint32_t j = 2 * kStreams + lane % 16;
  const float entry = combine_entry(mixes[j] * inverse_rms * job.scale[2] + job.base[j],
                                    job.hc_epsilon, job.sinkhorn_iterations);
  if (lane < 16) mix[kStreams + lane] = entry;
}

// Eight neighbouring channels of every stream of a row.
struct Channels {
  Float4 v[kStreams][2];

  DS4_DEVICE void load(const float* streams, std::uint32_t width, std::uint32_t c) {
#pragma unroll
    for (std::uint32_t s = 0; s < kStreams; ++s)
#pragma unroll
      for (std::uint32_t half = 0; half < 2; ++half)
        v[s][half] =
            c + half * 4 < width
                ? *reinterpret_cast<const Float4*>(streams + std::size_t{s} * width + c + half * 4)
                : Float4{0, 0, 0, 0};
  }
  DS4_DEVICE void collapse(const float (&gates)[kStreams], float (&sum)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      sum[i] = 0;
#pragma unroll
    for (std::uint32_t s = 0; s < kStreams; ++s)
#pragma unroll
      for (std::uint32_t half = 0; half < 2; ++half) {
        sum[half * 4] += gates[s] * v[s][half].x;
        sum[half * 4 + 1] += gates[s] * v[s][half].y;
        sum[half * 4 + 2] += gates[s] * v[s][half].z;
        sum[half * 4 + 3] += gates[s] * v[s][half].w;
      }
  }
};

DS4_KERNEL void reduce_rows(ReduceJob job, std::uint32_t chunks) {
  DS4_SHARED float mixes[kMixes + 1];
  DS4_SHARED float partial_sum[32];
  wait_for_inputs();
  const std::uint32_t index = blockIdx.x;
  const std::size_t r = job.row_indices == nullptr ? index : job.row_indices[index];
  if (blockIdx.y == 1) return make_mix(job, r, chunks, mixes);
  const float* streams = job.streams + r * kStreams * job.width;
  const std::uint32_t c0 = threadIdx.x * 8;
  // The first pass's channels come while the parts are added.
  Channels first;
  first.load(streams, job.width, c0);
  const float inverse_rms = add_partials(job, chunks, mixes);
  float gates[kStreams];
#pragma unroll
  for (std::uint32_t s = 0; s < kStreams; ++s)
    gates[s] = gate_of(mixes[s] * inverse_rms * job.scale[0] + job.base[s]) + job.hc_epsilon;
  float* reduced = job.reduced + std::size_t{index} * job.width;
  float value[8];
  float square = 0;
  for (std::uint32_t c = c0; c < job.width; c += kReduceThreads * 8) {
    Channels more = first;
    if (c != c0) more.load(streams, job.width, c);
    float sum[8];
    more.collapse(gates, sum);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      square += sum[i] * sum[i];
      if (c == c0) value[i] = sum[i];
    }
    store8(reduced, job.width, c, sum);
  }
  const float row_mean = block_sum(square, partial_sum) / static_cast<float>(job.width);
  const float inverse = 1.0F / sqrtf(row_mean + job.norm_epsilon);
  float* normed = job.normed + std::size_t{index} * job.width;
  // Whole warps go on while any of their lanes has channels: blocks of integers take all 32.
  for (std::uint32_t c = c0; c - c0 % 256 < job.width; c += kReduceThreads * 8) {
    if (c != c0) load8(reduced, job.width, c, value);
    float weight[8];
    load8(job.norm_weight, job.width, c, weight);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      value[i] = value[i] * inverse * weight[i];
    if (c >= job.width) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        value[i] = 0;
    }
    store8(normed, job.width, c, value);
    if (job.integers != nullptr)
      put_integers(row_integers(job.integers, index, job.width), 0, c / 256, value);
  }
}

DS4_KERNEL void expand(std::uint32_t width, float* streams, const float* output, const float* mix) {
  wait_for_inputs();
  const std::size_t r = blockIdx.y;
  const std::uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= width) return;
  float* at = streams + r * kStreams * width + c;
  float old[kStreams];
  float next[kStreams];
  for (std::uint32_t s = 0; s < kStreams; ++s)
    old[s] = at[std::size_t{s} * width];
  expand_channel(mix + r * (kStreams + kStreams * kStreams), output[r * width + c], old, next);
  for (std::uint32_t s = 0; s < kStreams; ++s)
    at[std::size_t{s} * width] = next[s];
}

DS4_KERNEL void steer(std::uint32_t width, const float* direction, float scale, float* output) {
  DS4_SHARED float partial[32];
  wait_for_inputs();
  float* row = output + std::size_t{blockIdx.x} * width;
  float along = 0;
  for (std::uint32_t c = threadIdx.x; c < width; c += blockDim.x)
    along += direction[c] * row[c];
  along = block_sum(along, partial);
  for (std::uint32_t c = threadIdx.x; c < width; c += blockDim.x)
    row[c] -= scale * along * direction[c];
}

DS4_KERNEL void normalize(
    std::uint32_t width, const float* in, const float* weight, float epsilon, float* out) {
  DS4_SHARED float partial[32];
  wait_for_inputs();
  const float* from = in + std::size_t{blockIdx.x} * width;
  float square = 0;
  for (std::uint32_t c = threadIdx.x; c < width; c += blockDim.x)
    square += from[c] * from[c];
  const float inverse =
      1.0F / sqrtf(block_sum(square, partial) / static_cast<float>(width) + epsilon);
  for (std::uint32_t c = threadIdx.x; c < width; c += blockDim.x)
    out[std::size_t{blockIdx.x} * width + c] = from[c] * inverse * weight[c];
}

DS4_KERNEL void gather(std::uint32_t width, const float* const* from, float* out) {
  wait_for_inputs();
  const std::uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c < width) out[std::size_t{blockIdx.y} * width + c] = from[blockIdx.y][c];
}

DS4_KERNEL void scatter(std::uint32_t width, const float* in, float* const* to) {
  wait_for_inputs();
  const std::uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c < width && to[blockIdx.y] != nullptr)
    to[blockIdx.y][c] = in[std::size_t{blockIdx.y} * width + c];
}

DS4_KERNEL void add_rows(std::uint32_t width, const float* added, float* streams) {
  wait_for_inputs();
  const std::uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= width) return;
  for (std::uint32_t s = 0; s < kStreams; ++s)
    streams[(std::size_t{blockIdx.y} * kStreams + s) * width + c] +=
        added[std::size_t{blockIdx.y} * width + c];
}

LaunchShape by_channel(std::uint32_t rows, std::uint32_t width) {
  return {.grid_x = (width + kThreads - 1) / kThreads, .grid_y = rows, .threads = kThreads};
}

}  // namespace

void embed_rows(Stream& stream,
                const Step& step,
                const Matrix& embedding,
                const std::byte* grid,
                std::uint32_t copies,
                float* out) {
  launch(stream, "embed",
         {.grid_x = (embedding.columns / 8 + 127) / 128, .grid_y = step.count, .threads = 128},
         embed, step, embedding, grid, copies, out);
}

void mix_streams(Stream& stream, const MixJob& job) {
  const std::uint32_t chunks = (job.width + kMixChannels - 1) / kMixChannels;
  if (job.rows <= 8) {
    launch(stream, "mixing streams", {.grid_x = chunks, .grid_y = job.rows, .threads = kThreads},
           mix_chunks<1>, job);
  } else {
    launch(stream, "mixing streams",
           {.grid_x = chunks, .grid_y = (job.rows + 3) / 4, .threads = kThreads}, mix_chunks<4>,
           job);
  }
}

void reduce_streams(Stream& stream, const ReduceJob& job) {
  const std::uint32_t chunks = (job.width + kMixChannels - 1) / kMixChannels;
  launch(stream, "reducing streams",
         {.grid_x = job.rows, .grid_y = job.mix == nullptr ? 1U : 2U, .threads = kReduceThreads},
         reduce_rows, job, chunks);
}

void expand_streams(Stream& stream,
                    std::uint32_t rows,
                    std::uint32_t width,
                    float* streams,
                    const float* output,
                    const float* mix) {
  launch(stream, "expanding streams", by_channel(rows, width), expand, width, streams, output, mix);
}

void steer_rows(Stream& stream,
                std::uint32_t rows,
                std::uint32_t width,
                const float* direction,
                float scale,
                float* output) {
  launch(stream, "steering", {.grid_x = rows, .threads = kThreads}, steer, width, direction, scale,
         output);
}

void normalize_rows(Stream& stream,
                    std::uint32_t rows,
                    std::uint32_t width,
                    const float* in,
                    const float* weight,
                    float epsilon,
                    float* out) {
  launch(stream, "normalising", {.grid_x = rows, .threads = kThreads}, normalize, width, in, weight,
         epsilon, out);
}

void gather_rows(
    Stream& stream, std::uint32_t rows, std::uint32_t width, const float* const* from, float* out) {
  launch(stream, "gathering rows", by_channel(rows, width), gather, width, from, out);
}

void scatter_rows(
    Stream& stream, std::uint32_t rows, std::uint32_t width, const float* in, float* const* to) {
  launch(stream, "scattering rows", by_channel(rows, width), scatter, width, in, to);
}

void add_to_streams(
    Stream& stream, std::uint32_t rows, std::uint32_t width, const float* added, float* streams) {
  launch(stream, "adding to streams", by_channel(rows, width), add_rows, width, added, streams);
}

}  // namespace ds4::cuda
