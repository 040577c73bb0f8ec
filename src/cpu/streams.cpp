// The hyper-connection streams: embedding, reduce, expand, steering, head, and the MTP block's
// input.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "cpu/machine.h"
#include "cpu/vectors.h"
#include "quant/codec.h"

namespace ds4::cpu {

void CpuMachine::embed() {
  pool_.run(row_count(), [&](std::size_t r) {
    const auto streams = row(a_.streams, r, config_.streams_width());
    const auto token = static_cast<std::size_t>(step_.rows[r].token.value());
    quant::decode_row(weights_.embedding.type, weights_.embedding.row(0, token),
                      streams.first(config_.width));
    for (std::size_t s = 1; s < config_.stream_count; ++s)
      std::copy_n(streams.begin(), config_.width,
                  streams.begin() + static_cast<std::ptrdiff_t>(s * config_.width));
  });
}

void CpuMachine::load_streams(ConstRows hidden) {
  std::copy_n(hidden.data(), hidden.size(), a_.streams.begin());
}

void CpuMachine::read_streams(Rows hidden) {
  std::copy_n(a_.streams.begin(), hidden.size(), hidden.data());
}

float CpuMachine::streams_rms(std::size_t r) {
  const auto streams = row(a_.streams, r, config_.streams_width());
  const float mean_square = kernels_.dot(streams.data(), streams.data(), streams.size()) /
                            static_cast<float>(streams.size());
  return 1.0F / std::sqrt(mean_square + config_.norm_epsilon);
}

// Gates and combination matrix from the mixer outputs (docs/model.md, streams).  `mix` receives the
// post gates, then the matrix with rows = source and columns = destination stream.
void CpuMachine::split_mixes(const HcWeights& hc,
                             std::span<const float> mixes,
                             std::span<float> pre,
                             std::span<float> mix) const {
  const std::size_t streams = config_.stream_count;
  const float eps = config_.hc_epsilon;
  const auto base = vector_values(hc.base);
  const auto scale = vector_values(hc.scale);
  for (std::size_t s = 0; s < streams; ++s) {
    pre[s] = sigmoid(mixes[s] * scale[0] + base[s]) + eps;
    mix[s] = 2.0F * sigmoid(mixes[streams + s] * scale[1] + base[streams + s]);
  }
  const std::span<float> matrix = mix.subspan(streams);
  const auto at = [&](std::size_t from, std::size_t to) -> float& {
    return matrix[from * streams + to];
  };
  const auto normalize_columns = [&] {
    for (std::size_t to = 0; to < streams; ++to) {
      float sum = eps;
      for (std::size_t from = 0; from < streams; ++from)
        sum += at(from, to);
      for (std::size_t from = 0; from < streams; ++from)
        at(from, to) /= sum;
    }
  };
  for (std::size_t from = 0; from < streams; ++from) {
    float largest = -INFINITY;
    for (std::size_t to = 0; to < streams; ++to) {
      const std::size_t j = 2 * streams + from * streams + to;
      at(from, to) = mixes[j] * scale[2] + base[j];
      largest = std::max(largest, at(from, to));
    }
    float sum = 0;
    for (std::size_t to = 0; to < streams; ++to)
      sum += at(from, to) = std::exp(at(from, to) - largest);
    for (std::size_t to = 0; to < streams; ++to)
      at(from, to) = at(from, to) / sum + eps;
  }
  normalize_columns();
  for (std::uint32_t i = 1; i < config_.sinkhorn_iterations; ++i) {
    for (std::size_t from = 0; from < streams; ++from) {
      float sum = eps;
      for (std::size_t to = 0; to < streams; ++to)
        sum += at(from, to);
      for (std::size_t to = 0; to < streams; ++to)
        at(from, to) /= sum;
    }
    normalize_columns();
  }
}

const HcWeights& CpuMachine::mixer(LayerIndex index, Sublayer sublayer) const {
  const LayerWeights& w = layer(index);
  return sublayer == Sublayer::kAttention ? w.attention_hc : w.ffn_hc;
}

void CpuMachine::reduce_row(const HcWeights& hc, std::size_t r) {
  const std::size_t streams = config_.stream_count;
  const auto values = row(a_.stream_mixes, r, streams * (2 + streams));
  const float rms = streams_rms(r);
  for (float& value : values)
    value *= rms;
  std::array<float, kStreamsMax> pre{};
  split_mixes(hc, values, pre, row(a_.mix, r, streams + streams * streams));
  const auto in = row(a_.streams, r, config_.streams_width());
  const auto out = row(a_.reduced, r, config_.width);
  std::fill(out.begin(), out.end(), 0.0F);
  for (std::size_t s = 0; s < streams; ++s)
    kernels_.add_scaled(out.data(), in.data() + s * config_.width, pre[s], config_.width);
}

void CpuMachine::normalize_row(LayerIndex index, Sublayer sublayer, std::size_t r) {
  const LayerWeights& w = layer(index);
  rms_normalize(row(a_.reduced, r, config_.width),
                vector_values(sublayer == Sublayer::kAttention ? w.attention_norm : w.ffn_norm),
                row(a_.normed, r, config_.width));
}

void CpuMachine::mix_streams(LayerIndex index, Sublayer sublayer) {
  const std::size_t streams = config_.stream_count;
  multiply(mixer(index, sublayer).fn, a_.streams, config_.streams_width(), a_.stream_mixes,
           streams * (2 + streams));
}

void CpuMachine::reduce_streams(LayerIndex index, Sublayer sublayer) {
  mix_streams(index, sublayer);
  pool_.run(row_count(), [&](std::size_t r) { reduce_row(mixer(index, sublayer), r); });
}

void CpuMachine::normalize(LayerIndex index, Sublayer sublayer) {
  pool_.run(row_count(), [&](std::size_t r) { normalize_row(index, sublayer, r); });
}

void CpuMachine::reduce_and_normalize(LayerIndex index, Sublayer sublayer) {
  mix_streams(index, sublayer);
  pool_.run(row_count(), [&](std::size_t r) {
    reduce_row(mixer(index, sublayer), r);
    normalize_row(index, sublayer, r);
  });
}

void CpuMachine::expand_streams(LayerIndex, Sublayer) {
  const std::size_t streams = config_.stream_count;
  pool_.run(row_count(), [&](std::size_t r) {
    const auto mix = row(a_.mix, r, streams + streams * streams);
    kernels_.expand_streams(row(a_.streams, r, config_.streams_width()).data(),
                            row(a_.output, r, config_.width).data(), mix.data(),
                            mix.data() + streams, streams, config_.width);
  });
}

void CpuMachine::steer(LayerIndex index, Sublayer sublayer) {
  const float scale =
      sublayer == Sublayer::kAttention ? steering_.attention_scale : steering_.ffn_scale;
  const float* direction = steering_.directions.data() + std::size_t{index.value()} * config_.width;
  pool_.run(row_count(), [&](std::size_t r) {
    const auto output = row(a_.output, r, config_.width);
    const float along = kernels_.dot(direction, output.data(), output.size());
    kernels_.add_scaled(output.data(), direction, -scale * along, output.size());
  });
}

// Collapses the streams of the listed rows with the head's own gates, normalises, multiplies.
void CpuMachine::head(HeadKind kind, std::span<const std::uint32_t> row_indices, Rows logits) {
  const HeadWeights& head = kind == HeadKind::kMain ? weights_.head : weights_.mtp->head;
  const std::size_t streams = config_.stream_count;
  multiply(head.hc.fn, a_.streams, config_.streams_width(), a_.stream_mixes, streams);
  const auto base = vector_values(head.hc.base);
  const float scale = vector_values(head.hc.scale)[0];
  pool_.run(row_indices.size(), [&](std::size_t i) {
    const std::size_t r = row_indices[i];
    const float rms = streams_rms(r);
    const auto in = row(a_.streams, r, config_.streams_width());
    const auto reduced = row(a_.reduced, r, config_.width);
    std::fill(reduced.begin(), reduced.end(), 0.0F);
    for (std::size_t s = 0; s < streams; ++s) {
      const float mixed = a_.stream_mixes[r * streams + s] * rms;
      const float gate = sigmoid(mixed * scale + base[s]) + config_.hc_epsilon;
      kernels_.add_scaled(reduced.data(), in.data() + s * config_.width, gate, config_.width);
    }
    rms_normalize(reduced, vector_values(head.norm), row(a_.normed, r, config_.width));
  });
  auto& in = input_pointers_[0];
  auto& out = output_pointers_[0];
  for (std::size_t i = 0; i < row_indices.size(); ++i) {
    in[i] = a_.normed.data() + std::size_t{row_indices[i]} * config_.width;
    out[i] = logits[i].data();
  }
  const MatmulJob job{.weight = &weights_.output,
                      .output_count = config_.vocab_size,
                      .inputs = std::span(in).first(row_indices.size()),
                      .outputs = std::span(out).first(row_indices.size())};
  matmul_.run({&job, 1});
}

void CpuMachine::store_streams() {
  const std::size_t width = config_.streams_width();
  for (const RowRun& run : step_.runs) {
    RowStore& store = state(run.sequence).streams();
    const auto kept =
        static_cast<std::uint32_t>(std::min<std::size_t>(run.count, store.capacity()));
    for (std::uint32_t i = run.count - kept; i < run.count; ++i) {
      const auto streams = row(a_.streams, run.first_row + i, width);
      std::memcpy(store.row(run.first_position.value() + i).data(), streams.data(),
                  streams.size_bytes());
    }
  }
}

void CpuMachine::recall_streams(const StepRows& step) {
  const std::size_t width = config_.streams_width();
  std::size_t next = 0;
  for (const RowRun& run : step.runs) {
    for (std::uint32_t i = 0; i < run.count; ++i) {
      const std::uint32_t position = run.first_position.value() + i;
      if (position == 0) continue;
      const auto previous = row(a_.previous, next++, width);
      if (i == 0) {
        const auto stored = state(run.sequence).streams().row(position - 1);
        std::memcpy(previous.data(), stored.data(), stored.size());
      } else {
        const auto streams = row(a_.streams, run.first_row + i - 1, width);
        std::copy(streams.begin(), streams.end(), previous.begin());
      }
    }
  }
}

void CpuMachine::reuse_streams() {
  std::copy_n(a_.streams.begin(), config_.streams_width(), a_.previous.begin());
}

// streams[s] = e_proj * norm(embedding) + h_proj * norm(previous[s])   (docs/model.md, MTP)
void CpuMachine::combine_mtp() {
  const MtpWeights& mtp = *weights_.mtp;
  const std::size_t width = config_.width;
  pool_.run(row_count(), [&](std::size_t r) {
    const auto embedding = row(a_.reduced, r, width);
    const auto token = static_cast<std::size_t>(step_.rows[r].token.value());
    quant::decode_row(weights_.embedding.type, weights_.embedding.row(0, token), embedding);
    rms_normalize(embedding, vector_values(mtp.token_norm), row(a_.normed, r, width));
    for (std::size_t s = 0; s < config_.stream_count; ++s) {
      const auto stream = row(a_.previous, r, config_.streams_width()).subspan(s * width, width);
      rms_normalize(stream, vector_values(mtp.stream_norm), stream);
    }
  });
  multiply(mtp.token_projection, a_.normed, width, a_.reduced, width);
  for (std::size_t s = 0; s < config_.stream_count; ++s) {
    const MatmulJob job{.weight = &mtp.stream_projection,
                        .output_count = width,
                        .inputs = inputs(0, a_.previous, config_.streams_width(), s * width),
                        .outputs = outputs(0, a_.streams, config_.streams_width(), s * width)};
    matmul_.run({&job, 1});
  }
  pool_.run(row_count(), [&](std::size_t r) {
    const auto streams = row(a_.streams, r, config_.streams_width());
    for (std::size_t s = 0; s < config_.stream_count; ++s)
      kernels_.add_scaled(streams.data() + s * width, a_.reduced.data() + r * width, 1.0F, width);
  });
}

}  // namespace ds4::cpu
