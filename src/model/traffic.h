#pragma once
#include <cstdint>

#include "model/weights.h"

namespace ds4 {

// What a batch must read of a model's weights and multiply with them, from the shapes and block
// types alone: the floor under the time of a step.  Used by what judges speed (ds4-bench).
// Immutable value.
struct WeightTraffic {
  std::uint64_t shared_bytes = 0;     // matrices that every batch reads whole
  std::uint64_t expert_bytes = 0;     // all routed experts of all layers
  std::uint64_t output_bytes = 0;     // output matrix and its collapse: where logits are wanted
  std::uint64_t embedding_bytes = 0;  // of one row
  std::uint64_t shared_values = 0;    // weights that a row is multiplied with, the same three parts
  std::uint64_t expert_values = 0;
  std::uint64_t output_values = 0;
  std::uint32_t expert_count = 0;
  std::uint32_t experts_used = 0;

  // Bytes of weights that one batch of `rows` reads, `logit_rows` of which want logits.  Routed
  // experts count by how many different ones the rows are expected to choose when each chooses
  // evenly and for itself; real routing repeats itself more, so it reads at most this.
  double batch_bytes(double rows, double logit_rows) const;
  // Floating-point operations of the matrix products of one row, two a weight.
  double row_flops(bool wants_logits) const;
};

WeightTraffic weight_traffic(const Weights& weights, const ModelConfig& config);

}  // namespace ds4
