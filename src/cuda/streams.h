#pragma once
#include "cuda/device.h"
#include "cuda/matrix.h"
#include "cuda/step.h"

namespace ds4::cuda {

// The hyper-connection streams.  Shapes as in backend/stages.h; `rows` from `step`.

// Token embeddings into every stream (or, with `copies` 1, into rows of `width`).
void embed_rows(Stream& stream,
                const Step& step,
                const Matrix& embedding,
                const std::byte* grid,
                std::uint32_t copies,
                float* out);

// Mixer outputs of the streams, in parts over chunks of channels.
struct MixJob {
  Matrix fn;  // [outputs, kStreams * width]
  std::uint32_t rows = 0;
  std::uint32_t width = 0;
  float* streams = nullptr;  // [rows, kStreams, width]
  // A sublayer's output still to be added (docs/model.md, streams); null: none.
  const float* output = nullptr;               // [rows, width]
  const float* mix = nullptr;                  // [rows, kStreams + kStreams^2]
  const std::uint32_t* row_indices = nullptr;  // rows to mix; null: all
  float* partial = nullptr;  // [rows, chunks, kMixes + 1]; the last is the sum of squares
};
inline constexpr std::uint32_t kMixChannels = 128;  // of one chunk
void mix_streams(Stream& stream, const MixJob& job);

// The rest of reduce and normalise, or of the head's collapse.
struct ReduceJob {
  std::uint32_t rows = 0;
  std::uint32_t width = 0;
  const float* streams = nullptr;
  const std::uint32_t* row_indices = nullptr;
  const float* partial = nullptr;
  const float* base = nullptr;
  const float* scale = nullptr;
  const float* norm_weight = nullptr;  // [width]
  float* mix = nullptr;                // null: the head's collapse, which has only gates
  float* reduced = nullptr;            // [rows, width]
  float* normed = nullptr;             // [rows, width]
  std::byte* integers = nullptr;       // [rows, integer_row_bytes(width)] or null: normed again
  float hc_epsilon = 0;
  float norm_epsilon = 0;
  std::uint32_t sinkhorn_iterations = 0;
};
void reduce_streams(Stream& stream, const ReduceJob& job);

// streams := post * output + combination of the streams.
void expand_streams(Stream& stream,
                    std::uint32_t rows,
                    std::uint32_t width,
                    float* streams,
                    const float* output,
                    const float* mix);

// output -= scale * direction * (direction . output)
void steer_rows(Stream& stream,
                std::uint32_t rows,
                std::uint32_t width,
                const float* direction,
                float scale,
                float* output);

// out[r] = rms-normalised in[r] * weight;  in place allowed.
void normalize_rows(Stream& stream,
                    std::uint32_t rows,
                    std::uint32_t width,
                    const float* in,
                    const float* weight,
                    float epsilon,
                    float* out);

// Row lists that the host made: out[i] = in[from[i]] or out[to[i]] = in[i], `width` floats each.
void gather_rows(
    Stream& stream, std::uint32_t rows, std::uint32_t width, const float* const* from, float* out);
void scatter_rows(
    Stream& stream, std::uint32_t rows, std::uint32_t width, const float* in, float* const* to);

// streams[r][s] += added[r]
void add_to_streams(
    Stream& stream, std::uint32_t rows, std::uint32_t width, const float* added, float* streams);

}  // namespace ds4::cuda
