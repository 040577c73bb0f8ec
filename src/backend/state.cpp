#include "backend/state.h"

#include <algorithm>

#include "base/error.h"

namespace ds4 {

const char* state_part_name(StatePart part) {
  switch (part) {
    case StatePart::kWindow:
      return "window";
    case StatePart::kCompressed:
      return "compressed";
    case StatePart::kIndexKeys:
      return "index_keys";
    case StatePart::kFrontier:
      return "frontier";
    case StatePart::kIndexFrontier:
      return "index_frontier";
    case StatePart::kStreams:
      return "streams";
  }
  return "?";
}

StateLayout::StateLayout(const ModelConfig& config, RowCodec codec, bool has_mtp)
    : config_(config),
      codec_(codec),
      has_mtp_(has_mtp) {}

std::size_t StateLayout::row_bytes(StatePart part, LayerIndex layer) const {
  const bool packed = codec_ == RowCodec::kPacked;
  const std::size_t overlap = config_.layer(layer).kind() == LayerKind::kIndexed ? 2 : 1;
  switch (part) {
    case StatePart::kWindow:
    case StatePart::kCompressed:
      return packed ? PackedRowLayout{config_.nope_dim(), config_.rope_dim}.bytes()
                    : config_.head_dim * sizeof(float);
    case StatePart::kIndexKeys:
      return packed ? packed_index_key_bytes(config_.index_dim) : config_.index_dim * sizeof(float);
    case StatePart::kFrontier:
      return 2 * overlap * config_.head_dim * sizeof(float);
    case StatePart::kIndexFrontier:
      return 2 * overlap * config_.index_dim * sizeof(float);
    case StatePart::kStreams:
      return config_.streams_width() * sizeof(float);
  }
  DS4_CHECK(false);
}

void StateLayout::push(std::vector<StateSection>& out,
                       StatePart part,
                       std::uint32_t layer,
                       std::uint32_t first,
                       std::uint32_t end) const {
  if (first >= end) return;
  out.push_back({.part = part,
                 .layer = LayerIndex{layer},
                 .first = first,
                 .count = end - first,
                 .row_bytes = row_bytes(part, LayerIndex{layer})});
}

void StateLayout::frontier_sections(std::uint32_t length, std::vector<StateSection>& out) const {
  out.clear();
  const auto last = [](std::uint32_t end, std::uint32_t count) {
    return end - std::min(end, count);
  };
  for (std::uint32_t l = 0; l < config_.layer_count; ++l) {
    push(out, StatePart::kWindow, l, last(length, config_.window), length);
    const std::uint32_t ratio = config_.layers[l].ratio;
    if (ratio == 0) continue;
    // The open window's tokens, and for ratio 4 the whole window before it.
    const std::uint32_t open = length / ratio * ratio;
    const bool overlaps = config_.layers[l].kind() == LayerKind::kIndexed;
    const std::uint32_t first = overlaps ? last(open, ratio) : open;
    push(out, StatePart::kFrontier, l, first, length);
    if (overlaps) push(out, StatePart::kIndexFrontier, l, first, length);
  }
  if (!has_mtp_ || length == 0) return;
  push(out, StatePart::kWindow, config_.layer_count, last(length - 1, config_.window), length - 1);
  push(out, StatePart::kStreams, 0, length - 1, length);
}

std::vector<StateSection> StateLayout::frontier_sections(std::uint32_t length) const {
  std::vector<StateSection> out;
  frontier_sections(length, out);
  return out;
}

std::vector<StateSection> StateLayout::appended_sections(std::uint32_t from,
                                                         std::uint32_t to) const {
  std::vector<StateSection> out;
  for (std::uint32_t l = 0; l < config_.layer_count; ++l) {
    const std::uint32_t ratio = config_.layers[l].ratio;
    if (ratio == 0) continue;
    push(out, StatePart::kCompressed, l, from / ratio, to / ratio);
    if (config_.layers[l].kind() == LayerKind::kIndexed)
      push(out, StatePart::kIndexKeys, l, from / ratio, to / ratio);
  }
  return out;
}

std::vector<StateSection> StateLayout::sections(std::uint32_t length) const {
  std::vector<StateSection> out = appended_sections(0, length);
  const std::vector<StateSection> frontier = frontier_sections(length);
  out.insert(out.end(), frontier.begin(), frontier.end());
  return out;
}

}  // namespace ds4
