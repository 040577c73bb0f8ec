#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/executor.h"
#include "backend/state.h"
#include "model/config.h"

namespace ds4::cpu {

// Tokens that a sequence can always take back: the rings hold that many rows more than the graph
// reads.
inline constexpr std::uint32_t kRewindMax = 16;

// Fixed-size rows addressed by an absolute number.  A ring keeps the newest `capacity` of them; an
// append-only store is a ring that never wraps.  Owns its bytes, uninitialised until written, so an
// untouched context costs no memory.
class RowStore {
 public:
  RowStore() = default;
  RowStore(std::size_t row_bytes, std::size_t capacity)
      : row_bytes_(row_bytes),
        capacity_(capacity),
        bytes_(new std::byte[row_bytes * capacity]) {}

  std::span<std::byte> row(std::uint32_t number) {
    return {bytes_.get() + number % capacity_ * row_bytes_, row_bytes_};
  }
  std::span<const std::byte> row(std::uint32_t number) const {
    return {bytes_.get() + number % capacity_ * row_bytes_, row_bytes_};
  }
  std::size_t capacity() const { return capacity_; }
  std::size_t bytes() const { return row_bytes_ * capacity_; }

 private:
  std::size_t row_bytes_ = 0;
  std::size_t capacity_ = 0;
  std::unique_ptr<std::byte[]> bytes_;
};

// The state of one layer of one sequence; stores that the layer has no use for are empty.
struct LayerState {
  RowStore window;
  RowStore compressed;
  RowStore index_keys;
  RowStore frontier;        // f32 [2, W]
  RowStore index_frontier;  // f32 [2, 2 * index_dim]
};

// The state of one sequence: all layers, then the MTP block when there is one.
class SequenceState {
 public:
  SequenceState(const StateLayout& layout,
                const ModelConfig& config,
                bool has_mtp,
                std::uint32_t context);

  LayerState& layer(LayerIndex index) { return layers_[index.value()]; }
  const LayerState& layer(LayerIndex index) const { return layers_[index.value()]; }
  RowStore& streams() { return streams_; }
  const RowStore& streams() const { return streams_; }

  RowStore& part(StatePart part, LayerIndex layer);
  const RowStore& part(StatePart part, LayerIndex layer) const;

  // Bytes allocated; equals planned_bytes() of the same arguments.
  std::uint64_t bytes() const;
  static std::uint64_t planned_bytes(const StateLayout& layout,
                                     const ModelConfig& config,
                                     bool has_mtp,
                                     std::uint32_t context);

 private:
  std::vector<LayerState> layers_;
  RowStore streams_;
};

}  // namespace ds4::cpu
