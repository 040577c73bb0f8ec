#include "roofline.h"

#include <algorithm>
#include <cmath>

namespace ds4::bench {

Roofline::Roofline(const ModelConfig& config,
                   const StateLayout& layout,
                   const WeightTraffic& traffic,
                   const MachineReport& machine)
    : config_(config),
      layout_(layout),
      traffic_(traffic),
      machine_(machine) {}

double Roofline::state_bytes(std::uint32_t position) const {
  const std::uint32_t visible = position + 1;
  double bytes = 0;
  for (std::uint32_t l = 0; l < config_.layer_count; ++l) {
    const LayerIndex layer{l};
    const LayerPlan& plan = config_.layer(layer);
    std::uint32_t rows = std::min(visible, config_.window);
    if (plan.ratio != 0) {
      const std::uint32_t compressed = visible / plan.ratio;
      const bool selects = plan.kind() == LayerKind::kIndexed && compressed > config_.index_top_k;
      rows += selects ? config_.index_top_k : compressed;
      if (selects)
        bytes += static_cast<double>(layout_.row_bytes(StatePart::kIndexKeys, layer)) * compressed;
    }
    bytes += static_cast<double>(layout_.row_bytes(StatePart::kWindow, layer)) * rows;
  }
  return bytes;
}

double Roofline::decode_bytes(std::uint32_t position, std::uint32_t users) const {
  return traffic_.batch_bytes(users, users) + state_bytes(position) * users;
}

// Matrix products, and for every visible row of a layer a product with each head's query and one
// with its value, for every index key one with each of the indexer's queries.
double Roofline::row_flops(double position) const {
  double flops = traffic_.row_flops(false);
  for (const LayerPlan& plan : config_.layers) {
    double rows = std::min<double>(position + 1, config_.window);
    if (plan.ratio != 0) {
      const double compressed = std::floor((position + 1) / plan.ratio);
      const bool selects = plan.kind() == LayerKind::kIndexed && compressed > config_.index_top_k;
      rows += selects ? config_.index_top_k : compressed;
      if (selects) flops += 2.0 * config_.index_head_count * config_.index_dim * compressed;
    }
    flops += 4.0 * static_cast<double>(config_.heads_width()) * rows;
  }
  return flops;
}

// By Simpson's rule over pieces: the cost of a row grows piecewise linearly with its position.
double Roofline::prefill_flops(std::uint32_t from, std::uint32_t to) const {
  constexpr int kPieces = 32;
  const double width = (static_cast<double>(to) - from) / kPieces;
  double sum = 0;
  for (int i = 0; i < kPieces; ++i) {
    const double start = from + i * width;
    sum += (row_flops(start) + 4 * row_flops(start + width / 2) + row_flops(start + width)) / 6;
  }
  return sum * width;
}

double Roofline::decode_share(double bytes, double seconds) const {
  if (machine_.copy_gbps <= 0 || seconds <= 0) return 0;
  return bytes / (machine_.copy_gbps * 1e9) / seconds;
}

double Roofline::prefill_share(std::uint32_t from,
                               std::uint32_t to,
                               std::uint32_t chunk,
                               double seconds) const {
  if (machine_.peak_tflops <= 0 || machine_.copy_gbps <= 0 || seconds <= 0) return 0;
  const double arithmetic = prefill_flops(from, to) / (machine_.peak_tflops * 1e12);
  double bytes = 0;
  for (std::uint32_t at = from; at < to; at += std::min(chunk, to - at))
    bytes += traffic_.batch_bytes(std::min(chunk, to - at), 0);
  return std::max(arithmetic, bytes / (machine_.copy_gbps * 1e9)) / seconds;
}

}  // namespace ds4::bench
