#include "cuda/sequence_state.h"

#include <algorithm>

#include "base/error.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kStreamRows = 2 * kRewindMax;

// Hands out aligned pieces of one allocation; with a null base it only counts.
class Pieces {
 public:
  explicit Pieces(std::byte* base) : base_(base) {}
  std::byte* take(std::size_t bytes) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (bytes + 255) / 256 * 256;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

std::size_t window_capacity(const ModelConfig& config) {
  return config.window + 2 * kRewindMax;
}

std::size_t frontier_floats(std::uint32_t ratio, std::size_t size) {
  return std::size_t{2} * (ratio == 4 ? 2 : 1) * size;
}

LayerState layer_state(Pieces& pieces,
                       const ModelConfig& config,
                       const LayerPlan& plan,
                       std::uint32_t context) {
  LayerState state;
  state.window = pieces.take(window_capacity(config) * kRowBytes);
  if (plan.ratio == 0) return state;
  const std::size_t rows = context / plan.ratio + 1;
  const std::size_t frontier = frontier_capacity(plan.ratio);
  state.compressed = pieces.take(rows * kRowBytes);
  state.frontier = reinterpret_cast<float*>(
      pieces.take(frontier * frontier_floats(plan.ratio, kHeadDim) * sizeof(float)));
  if (plan.kind() != LayerKind::kIndexed) return state;
  state.key_codes = pieces.take(rows * kKeyCodeBytes);
  state.key_scales = pieces.take(rows * kKeyScaleBytes);
  state.index_frontier = reinterpret_cast<float*>(
      pieces.take(frontier * frontier_floats(plan.ratio, kIndexDim) * sizeof(float)));
  return state;
}

std::vector<LayerState> place(Pieces& pieces,
                              const ModelConfig& config,
                              bool has_mtp,
                              std::uint32_t context,
                              float** streams) {
  std::vector<LayerState> layers;
  const std::uint32_t count = config.layer_count + (has_mtp ? 1 : 0);
  for (std::uint32_t l = 0; l < count; ++l)
    layers.push_back(layer_state(pieces, config, config.layer(LayerIndex{l}), context));
  if (has_mtp)
    *streams =
        reinterpret_cast<float*>(pieces.take(kStreamRows * config.streams_width() * sizeof(float)));
  return layers;
}

}  // namespace

std::uint64_t SequenceState::planned_bytes(const ModelConfig& config,
                                           bool has_mtp,
                                           std::uint32_t context) {
  Pieces pieces(nullptr);
  float* streams = nullptr;
  static_cast<void>(place(pieces, config, has_mtp, context, &streams));
  return pieces.used();
}

SequenceState::SequenceState(Stream& stream,
                             const ModelConfig& config,
                             bool has_mtp,
                             std::uint32_t context)
    : config_(config),
      context_(context),
      memory_(planned_bytes(config, has_mtp, context), "the state of a sequence") {
  // Rows that nothing wrote are never read; zeros keep it so that even a defect stays finite.
  stream.clear(memory_.data(), memory_.bytes());
  Pieces pieces(memory_.data());
  layers_ = place(pieces, config, has_mtp, context, &streams_);
}

float* SequenceState::streams(std::uint32_t position) const {
  return streams_ + position % kStreamRows * config_.streams_width();
}

std::vector<SequenceState::Plane> SequenceState::planes(StatePart part, LayerIndex layer) const {
  const LayerState& state = layers_[layer.value()];
  const std::uint32_t ratio = config_.layer(layer).ratio;
  const std::size_t rows = ratio == 0 ? 0 : context_ / ratio + 1;
  const auto bytes_of = [](float* from) { return reinterpret_cast<std::byte*>(from); };
  switch (part) {
    case StatePart::kWindow:
      return {{state.window, kRowBytes, window_capacity(config_), 0}};
    case StatePart::kCompressed:
      return {{state.compressed, kRowBytes, rows, 0}};
    case StatePart::kIndexKeys:
      return {{state.key_codes, kKeyCodeBytes, rows, 0},
              {state.key_scales, kKeyScaleBytes, rows, kKeyCodeBytes}};
    case StatePart::kFrontier:
      return {{bytes_of(state.frontier), frontier_floats(ratio, kHeadDim) * sizeof(float),
               frontier_capacity(ratio), 0}};
    case StatePart::kIndexFrontier:
      return {{bytes_of(state.index_frontier), frontier_floats(ratio, kIndexDim) * sizeof(float),
               frontier_capacity(ratio), 0}};
    case StatePart::kStreams:
      return {{bytes_of(streams_), config_.streams_width() * sizeof(float), kStreamRows, 0}};
  }
  DS4_CHECK(false);
}

void SequenceState::read(Stream& stream,
                         const StateSection& section,
                         std::span<std::byte> out) const {
  for (const Plane& plane : planes(section.part, section.layer)) {
    for (std::uint32_t done = 0; done < section.count;) {
      const std::size_t slot = (section.first + done) % plane.capacity;
      const std::size_t count = std::min<std::size_t>(section.count - done, plane.capacity - slot);
      stream.copy_rows(out.data() + done * section.row_bytes + plane.offset, section.row_bytes,
                       plane.data + slot * plane.row_bytes, plane.row_bytes, plane.row_bytes,
                       count);
      done += static_cast<std::uint32_t>(count);
    }
  }
  stream.synchronize("reading a sequence's state");
}

void SequenceState::write(Stream& stream,
                          const StateSection& section,
                          std::span<const std::byte> bytes) {
  for (const Plane& plane : planes(section.part, section.layer)) {
    for (std::uint32_t done = 0; done < section.count;) {
      const std::size_t slot = (section.first + done) % plane.capacity;
      const std::size_t count = std::min<std::size_t>(section.count - done, plane.capacity - slot);
      stream.copy_rows(plane.data + slot * plane.row_bytes, plane.row_bytes,
                       bytes.data() + done * section.row_bytes + plane.offset, section.row_bytes,
                       plane.row_bytes, count);
      done += static_cast<std::uint32_t>(count);
    }
  }
  stream.synchronize("writing a sequence's state");
}

}  // namespace ds4::cuda
