#include "cpu/sequence_state.h"

#include "base/error.h"

namespace ds4::cpu {

namespace {

// Rows of each store of one layer; 0 means that the layer does not have it.
struct LayerCapacity {
  std::size_t window = 0;
  std::size_t compressed = 0;
  std::size_t index_keys = 0;
  std::size_t frontier = 0;
  std::size_t index_frontier = 0;
};

LayerCapacity layer_capacity(const ModelConfig& config, LayerIndex layer, std::uint32_t context) {
  const LayerPlan& plan = config.layer(layer);
  LayerCapacity capacity;
  // Twice kRewindMax: drafts write rows of the MTP window beyond the sequence's length.
  capacity.window = config.window + 2 * kRewindMax;
  if (plan.ratio == 0) return capacity;
  capacity.compressed = context / plan.ratio + 1;
  const bool overlaps = plan.kind() == LayerKind::kIndexed;
  capacity.frontier = plan.ratio * (overlaps ? 2 : 1) + kRewindMax;
  if (!overlaps) return capacity;
  capacity.index_keys = capacity.compressed;
  capacity.index_frontier = capacity.frontier;
  return capacity;
}

std::uint32_t layer_total(const ModelConfig& config, bool has_mtp) {
  return config.layer_count + (has_mtp ? 1 : 0);
}

constexpr std::size_t kStreamRows = std::size_t{2} * kRewindMax;

}  // namespace

SequenceState::SequenceState(const StateLayout& layout,
                             const ModelConfig& config,
                             bool has_mtp,
                             std::uint32_t context) {
  for (std::uint32_t l = 0; l < layer_total(config, has_mtp); ++l) {
    const LayerIndex layer{l};
    const LayerCapacity capacity = layer_capacity(config, layer, context);
    const auto store = [&](StatePart part, std::size_t rows) {
      return rows == 0 ? RowStore() : RowStore(layout.row_bytes(part, layer), rows);
    };
    LayerState& state = layers_.emplace_back();
    state.window = store(StatePart::kWindow, capacity.window);
    state.compressed = store(StatePart::kCompressed, capacity.compressed);
    state.index_keys = store(StatePart::kIndexKeys, capacity.index_keys);
    state.frontier = store(StatePart::kFrontier, capacity.frontier);
    state.index_frontier = store(StatePart::kIndexFrontier, capacity.index_frontier);
  }
  if (has_mtp) streams_ = RowStore(config.streams_width() * sizeof(float), kStreamRows);
}

std::uint64_t SequenceState::planned_bytes(const StateLayout& layout,
                                           const ModelConfig& config,
                                           bool has_mtp,
                                           std::uint32_t context) {
  std::uint64_t total = has_mtp ? config.streams_width() * sizeof(float) * kStreamRows : 0;
  for (std::uint32_t l = 0; l < layer_total(config, has_mtp); ++l) {
    const LayerIndex layer{l};
    const LayerCapacity capacity = layer_capacity(config, layer, context);
    total += capacity.window * layout.row_bytes(StatePart::kWindow, layer) +
             capacity.compressed * layout.row_bytes(StatePart::kCompressed, layer) +
             capacity.index_keys * layout.row_bytes(StatePart::kIndexKeys, layer) +
             capacity.frontier * layout.row_bytes(StatePart::kFrontier, layer) +
             capacity.index_frontier * layout.row_bytes(StatePart::kIndexFrontier, layer);
  }
  return total;
}

std::uint64_t SequenceState::bytes() const {
  std::uint64_t total = streams_.bytes();
  for (const LayerState& layer : layers_) {
    for (const RowStore* store : {&layer.window, &layer.compressed, &layer.index_keys,
                                  &layer.frontier, &layer.index_frontier})
      total += store->bytes();
  }
  return total;
}

RowStore& SequenceState::part(StatePart part, LayerIndex layer) {
  LayerState& state = layers_[layer.value()];
  switch (part) {
    case StatePart::kWindow:
      return state.window;
    case StatePart::kCompressed:
      return state.compressed;
    case StatePart::kIndexKeys:
      return state.index_keys;
    case StatePart::kFrontier:
      return state.frontier;
    case StatePart::kIndexFrontier:
      return state.index_frontier;
    case StatePart::kStreams:
      return streams_;
  }
  DS4_CHECK(false);
}

const RowStore& SequenceState::part(StatePart part, LayerIndex layer) const {
  return const_cast<SequenceState*>(this)->part(part, layer);
}

}  // namespace ds4::cpu
