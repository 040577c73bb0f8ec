#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "backend/executor.h"
#include "backend/state.h"
#include "cuda/device.h"
#include "cuda/step.h"
#include "model/config.h"

namespace ds4::cuda {

// The state of one sequence on the card: one allocation, laid out by layer.  Rows stand as the
// portable layout has them, but index keys, whose codes and scales are two planes.
class SequenceState {
 public:
  SequenceState(Stream& stream, const ModelConfig& config, bool has_mtp, std::uint32_t context);

  // [layers, the MTP block included]
  const std::vector<LayerState>& layers() const { return layers_; }
  // Row of the streams kept for the MTP block at `position`.
  float* streams(std::uint32_t position) const;

  void read(Stream& stream, const StateSection& section, std::span<std::byte> out) const;
  void write(Stream& stream, const StateSection& section, std::span<const std::byte> bytes);

  std::uint64_t bytes() const { return memory_.bytes(); }
  static std::uint64_t planned_bytes(const ModelConfig& config,
                                     bool has_mtp,
                                     std::uint32_t context);

 private:
  struct Plane {
    std::byte* data;
    std::size_t row_bytes;
    std::size_t capacity;
    std::size_t offset;  // in a portable row
  };
  // The planes that make up a part's rows: one, or two for index keys.
  std::vector<Plane> planes(StatePart part, LayerIndex layer) const;

  const ModelConfig& config_;
  std::uint32_t context_;
  DeviceBuffer memory_;
  std::vector<LayerState> layers_;
  float* streams_ = nullptr;
};

}  // namespace ds4::cuda
