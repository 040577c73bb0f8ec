#include "model/traffic.h"

#include <cmath>

namespace ds4 {

namespace {

std::uint64_t value_count(const Weight& weight) {
  return std::uint64_t{weight.slabs} * weight.rows * weight.columns;
}

struct Sum {
  std::uint64_t bytes = 0;
  std::uint64_t values = 0;
  void add(const Weight& weight) {
    bytes += weight.bytes.size();
    values += value_count(weight);
  }
};

void add_layer(const LayerWeights& layer, Sum& shared, Sum& experts) {
  auto visit = [&](const Weight& weight) {
    const bool routed = &weight == &layer.expert_gate || &weight == &layer.expert_up ||
                        &weight == &layer.expert_down;
    // A row reads its own line of the hash table, a few bytes.
    if (&weight == &layer.hash_table) return;
    (routed ? experts : shared).add(weight);
  };
  internal::visit_layer(layer, visit);
}

}  // namespace

WeightTraffic weight_traffic(const Weights& weights, const ModelConfig& config) {
  Sum shared;
  Sum experts;
  for (const LayerWeights& layer : weights.layers)
    add_layer(layer, shared, experts);
  if (weights.mtp) {
    shared.add(weights.mtp->token_projection);
    shared.add(weights.mtp->stream_projection);
    add_layer(weights.mtp->block, shared, experts);
  }
  Sum output;
  if (weights.output.present()) {
    output.add(weights.output);
    output.add(weights.head.hc.fn);
  }
  return {.shared_bytes = shared.bytes,
          .expert_bytes = experts.bytes,
          .output_bytes = output.bytes,
          .embedding_bytes = weights.embedding.present() ? weights.embedding.row_bytes() : 0,
          .shared_values = shared.values,
          .expert_values = experts.values,
          .output_values = output.values,
          .expert_count = config.expert_count,
          .experts_used = config.experts_used};
}

double WeightTraffic::batch_bytes(double rows, double logit_rows) const {
  const double used = static_cast<double>(experts_used) / expert_count;
  const double touched = 1 - std::pow(1 - used, rows);
  return static_cast<double>(shared_bytes) + static_cast<double>(expert_bytes) * touched +
         (logit_rows > 0 ? static_cast<double>(output_bytes) : 0) +
         static_cast<double>(embedding_bytes) * rows;
}

double WeightTraffic::row_flops(bool wants_logits) const {
  const double used = static_cast<double>(experts_used) / expert_count;
  return 2 * (static_cast<double>(shared_values) + static_cast<double>(expert_values) * used +
              (wants_logits ? static_cast<double>(output_values) : 0));
}

}  // namespace ds4
