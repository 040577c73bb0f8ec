// The streams, a layer's second half, the head and the MTP block's input.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "cuda/experts.h"
#include "cuda/grouped_experts.h"
#include "cuda/machine.h"
#include "cuda/matvec.h"
#include "cuda/streams.h"
#include "cuda/tile_product.h"

namespace ds4::cuda {

void CudaMachine::embed() {
  pending_expand_ = false;
  embed_rows(stream_, step_, weights_.embedding, weights_.grid, kStreams, a_.streams);
}

void CudaMachine::load_streams(ConstRows hidden) {
  pending_expand_ = false;
  stream_.upload(a_.streams, hidden.data(), hidden.size() * sizeof(float));
  stream_.synchronize("loading streams");
}

void CudaMachine::read_streams(Rows hidden) {
  settle_streams();
  stream_.download(hidden.data(), a_.streams, hidden.size() * sizeof(float));
  stream_.synchronize("reading streams");
}

void CudaMachine::settle_streams() {
  if (!pending_expand_) return;
  pending_expand_ = false;
  cuda::expand_streams(stream_, row_count(), config_.width, a_.streams, a_.output, a_.mix);
}

// Makes `reduced` and, in the same launch, `normed`.
void CudaMachine::reduce_streams(LayerIndex index, Sublayer sublayer) {
  const DeviceLayer& w = layer(index);
  const bool attention = sublayer == Sublayer::kAttention;
  const DeviceHc& hc = attention ? w.attention_hc : w.ffn_hc;
  mix_streams(stream_, {.fn = hc.fn,
                        .rows = row_count(),
                        .width = config_.width,
                        .streams = a_.streams,
                        .output = pending_expand_ ? a_.output : nullptr,
                        .mix = a_.mix,
                        .row_indices = nullptr,
                        .partial = a_.partial});
  pending_expand_ = false;
  cuda::reduce_streams(stream_, {.rows = row_count(),
                                 .width = config_.width,
                                 .streams = a_.streams,
                                 .row_indices = nullptr,
                                 .partial = a_.partial,
                                 .base = hc.base,
                                 .scale = hc.scale,
                                 .norm_weight = attention ? w.attention_norm : w.ffn_norm,
                                 .mix = a_.mix,
                                 .reduced = a_.reduced,
                                 .normed = a_.normed,
                                 .integers = row_count() <= kIntegerRowsMax ? a_.integers : nullptr,
                                 .hc_epsilon = config_.hc_epsilon,
                                 .norm_epsilon = config_.norm_epsilon,
                                 .sinkhorn_iterations = config_.sinkhorn_iterations});
}

// reduce_streams() has normalised already.
void CudaMachine::normalize(LayerIndex, Sublayer) {}

// Put off: the next reduction reads and writes the streams anyway.
void CudaMachine::expand_streams(LayerIndex, Sublayer) {
  pending_expand_ = true;
}

void CudaMachine::steer(LayerIndex index, Sublayer sublayer) {
  const float scale =
      sublayer == Sublayer::kAttention ? steering_.attention_scale : steering_.ffn_scale;
  steer_rows(stream_, row_count(), config_.width,
             directions_.as<float>() + std::size_t{index.value()} * config_.width, scale,
             a_.output);
}

void CudaMachine::route(LayerIndex index) {
  const DeviceLayer& w = layer(index);
  multiply("router", {.w = w.router,
                      .x = a_.normed,
                      .x_stride = config_.width,
                      .integers = row_count() <= kIntegerRowsMax ? a_.integers : nullptr,
                      .out = a_.router,
                      .out_stride = config_.expert_count,
                      .rows = row_count()});
  route_rows(stream_, {.step = step_,
                       .expert_count = config_.expert_count,
                       .used = config_.experts_used,
                       .weight_scale = config_.expert_weight_scale,
                       .logits = a_.router,
                       .bias = w.router_bias,
                       .hash_table = w.hash_table,
                       .ids = a_.expert_ids,
                       .weights = a_.expert_weights});
}

void CudaMachine::experts(LayerIndex index) {
  const DeviceLayer& w = layer(index);
  const float limit = config_.layer(index).swiglu_limit;
  if (row_count() > kIntegerRowsMax) return experts_of_many(w, limit);
  run_experts_of_few(stream_, device_,
                     {.rows = row_count(),
                      .used = config_.experts_used,
                      .limit = limit,
                      .gate = w.expert_gate,
                      .up = w.expert_up,
                      .down = w.expert_down,
                      .shared_gate = w.shared_gate,
                      .shared_up = w.shared_up,
                      .shared_down = w.shared_down,
                      .ids = a_.expert_ids,
                      .weights = a_.expert_weights,
                      .x = a_.integers,
                      .mid = a_.expert_gate,
                      .slot_output = a_.expert_out,
                      .output = a_.output,
                      .grid = weights_.grid});
  fetch_layer_ahead(LayerIndex{index.value() + 1});
}

void CudaMachine::experts_of_many(const DeviceLayer& w, float limit) {
  const std::uint32_t rows = row_count();
  const std::uint32_t used = config_.experts_used;
  const std::uint32_t slots = used + 1;
  const std::uint32_t inner = config_.expert_width;
  const ExpertTiles tiles = group_by_expert(stream_, {.rows = rows,
                                                      .used = used,
                                                      .expert_count = config_.expert_count,
                                                      .ids = a_.expert_ids,
                                                      .pairs = a_.pairs,
                                                      .tiles = a_.tiles,
                                                      .tile_count = a_.tile_count});
  round_activations(stream_, a_.normed, config_.width, rows, config_.width, a_.rounded, nullptr);
  // Each product once for the routed experts' tiles, once for the shared expert: the last slot.
  TileProduct gated{.w = w.expert_gate,
                    .up = w.expert_up,
                    .x = a_.rounded,
                    .x_stride = config_.width,
                    .out_rounded = a_.expert_mid,
                    .out_stride = inner,
                    .experts = tiles,
                    .x_divisor = slots,
                    .limit = limit,
                    .weights = a_.expert_weights,
                    .slots = slots,
                    .grid = weights_.grid};
  run_gated_tile_product(stream_, "expert gate and up", gated);
  gated.w = w.shared_gate;
  gated.up = w.shared_up;
  gated.out_rounded = a_.expert_mid + std::size_t{used} * inner;
  gated.out_stride = slots * inner;
  gated.rows = rows;
  gated.experts = {};
  gated.x_divisor = 1;
  gated.weights = nullptr;
  run_gated_tile_product(stream_, "shared gate and up", gated);
  TileProduct down{.w = w.expert_down,
                   .x = a_.expert_mid,
                   .x_stride = inner,
                   .out = a_.expert_out,
                   .out_stride = config_.width,
                   .experts = tiles,
                   .grid = weights_.grid};
  run_tile_product(stream_, "expert down", down);
  down.w = w.shared_down;
  down.x = a_.expert_mid + std::size_t{used} * inner;
  down.x_stride = slots * inner;
  down.out = a_.expert_out + std::size_t{used} * config_.width;
  down.out_stride = slots * config_.width;
  down.rows = rows;
  down.experts = {};
  run_tile_product(stream_, "shared down", down);
  combine_experts(stream_, rows, slots, config_.width, a_.expert_out, a_.output);
}

void CudaMachine::head(HeadKind kind, std::span<const std::uint32_t> row_indices, Rows logits) {
  const DeviceHead& head = kind == HeadKind::kMain ? weights_.head : weights_.mtp->head;
  settle_streams();
  for (std::size_t first = 0; first < row_indices.size(); first += kLogitRows) {
    const std::size_t count = std::min<std::size_t>(kLogitRows, row_indices.size() - first);
    make_logits(head, row_indices.subspan(first, count));
    const std::size_t bytes = count * config_.vocab_size * sizeof(float);
    stream_.download(host_logits_.data(), a_.logits, bytes);
    stream_.synchronize("a step");
    std::memcpy(logits.data() + first * config_.vocab_size, host_logits_.data(), bytes);
  }
}

void CudaMachine::head_candidates(HeadKind kind,
                                  std::span<const std::uint32_t> row_indices,
                                  std::span<const sample::CandidateQuery> queries,
                                  std::span<sample::CandidateSet> sets) {
  settle_streams();
  make_logits(kind == HeadKind::kMain ? weights_.head : weights_.mtp->head, row_indices);
  sample_.collect(stream_, a_.logits, config_.vocab_size, queries, sets);
}

void CudaMachine::read_logits(std::size_t index, std::span<float> logits) {
  DS4_CHECK(index < kLogitRows && logits.size() == config_.vocab_size);
  stream_.download(host_logits_.data(), a_.logits + index * config_.vocab_size,
                   logits.size_bytes());
  stream_.synchronize("reading logits");
  std::memcpy(logits.data(), host_logits_.data(), logits.size_bytes());
}

void CudaMachine::make_logits(const DeviceHead& head, std::span<const std::uint32_t> row_indices) {
  const auto rows = static_cast<std::uint32_t>(row_indices.size());
  upload_small(a_.logit_rows, row_indices.data(), row_indices.size_bytes());
  mix_streams(stream_, {.fn = head.hc.fn,
                        .rows = rows,
                        .width = config_.width,
                        .streams = a_.streams,
                        .output = nullptr,
                        .mix = nullptr,
                        .row_indices = a_.logit_rows,
                        .partial = a_.partial});
  cuda::reduce_streams(stream_, {.rows = rows,
                                 .width = config_.width,
                                 .streams = a_.streams,
                                 .row_indices = a_.logit_rows,
                                 .partial = a_.partial,
                                 .base = head.hc.base,
                                 .scale = head.hc.scale,
                                 .norm_weight = head.norm,
                                 .mix = nullptr,
                                 .reduced = a_.reduced,
                                 .normed = a_.head_normed,
                                 .integers = rows <= kIntegerRowsMax ? a_.integers : nullptr,
                                 .hc_epsilon = config_.hc_epsilon,
                                 .norm_epsilon = config_.norm_epsilon,
                                 .sinkhorn_iterations = 0});
  multiply("output head", {.w = weights_.output,
                           .x = a_.head_normed,
                           .x_stride = config_.width,
                           .integers = rows <= kIntegerRowsMax ? a_.integers : nullptr,
                           .out = a_.logits,
                           .out_stride = config_.vocab_size,
                           .rows = rows});
}

void CudaMachine::store_streams() {
  settle_streams();
  std::fill(host_pointers_.begin(), host_pointers_.end(), nullptr);
  for (std::uint32_t r = 0; r < row_count(); ++r) {
    const StepRow& row = host_rows_[r];
    // Older rows of a long run would be overwritten by newer ones of the same launch.
    if (row.position + kRewindMax < row.run_first_position + row.run_count) continue;
    host_pointers_[r] = sequences_[row.sequence]->streams(row.position);
  }
  upload_small(a_.pointers, host_pointers_.data(), row_count() * sizeof(float*));
  scatter_rows(stream_, row_count(), kStreams * config_.width, a_.streams, a_.pointers);
}

void CudaMachine::recall_streams(const StepRows& step) {
  settle_streams();
  const std::size_t width = config_.streams_width();
  std::uint32_t count = 0;
  for (const RowRun& run : step.runs) {
    for (std::uint32_t i = 0; i < run.count; ++i) {
      const std::uint32_t position = run.first_position.value() + i;
      if (position == 0) continue;
      host_pointers_[count++] = i == 0 ? sequences_[run.sequence.value()]->streams(position - 1)
                                       : a_.streams + (run.first_row + i - 1) * width;
    }
  }
  if (count == 0) return;
  upload_small(a_.pointers, host_pointers_.data(), count * sizeof(float*));
  gather_rows(stream_, count, kStreams * config_.width, a_.pointers, a_.previous);
}

void CudaMachine::reuse_streams() {
  settle_streams();
  stream_.copy_device(a_.previous, a_.streams, config_.streams_width() * sizeof(float));
}

// streams[s] = e_proj * norm(embedding) + h_proj * norm(previous[s])   (docs/model.md, MTP)
void CudaMachine::combine_mtp() {
  pending_expand_ = false;
  const DeviceMtp& mtp = *weights_.mtp;
  const std::uint32_t rows = row_count();
  const std::uint32_t width = config_.width;
  embed_rows(stream_, step_, weights_.embedding, weights_.grid, 1, a_.reduced);
  normalize_rows(stream_, rows, width, a_.reduced, mtp.token_norm, config_.norm_epsilon, a_.normed);
  normalize_rows(stream_, rows * kStreams, width, a_.previous, mtp.stream_norm,
                 config_.norm_epsilon, a_.previous);
  multiply("MTP token projection", {.w = mtp.token_projection,
                                    .x = a_.normed,
                                    .x_stride = width,
                                    .integers = nullptr,
                                    .out = a_.reduced,
                                    .out_stride = width,
                                    .rows = rows});
  for (std::uint32_t s = 0; s < kStreams; ++s) {
    multiply("MTP stream projection", {.w = mtp.stream_projection,
                                       .x = a_.previous + std::size_t{s} * width,
                                       .x_stride = kStreams * width,
                                       .integers = nullptr,
                                       .out = a_.streams + std::size_t{s} * width,
                                       .out_stride = kStreams * width,
                                       .rows = rows});
  }
  add_to_streams(stream_, rows, width, a_.reduced, a_.streams);
}

}  // namespace ds4::cuda
