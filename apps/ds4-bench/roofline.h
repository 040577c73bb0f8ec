#pragma once
#include <cstdint>

#include "backend/machine_report.h"
#include "backend/state.h"
#include "model/config.h"
#include "model/traffic.h"

namespace ds4::bench {

// The least that a machine must do for a step, and how long it takes at least: what a measured time
// is held against.  (docs/performance.md says how to read it.)
class Roofline {
 public:
  // References are kept.
  Roofline(const ModelConfig& config,
           const StateLayout& layout,
           const WeightTraffic& traffic,
           const MachineReport& machine);

  // Bytes read for one decode step of `users` rows, each at `position`: weights, and of the state
  // the rows that attention and the indexer look at.
  double decode_bytes(std::uint32_t position, std::uint32_t users) const;
  // Bytes of state read by one row at `position`.
  double state_bytes(std::uint32_t position) const;
  // Operations for reading the tokens [from, to) of one prompt, the head left out.
  double prefill_flops(std::uint32_t from, std::uint32_t to) const;

  // Share of the machine's best that a phase reached, in [0, 1]; 0 when its best is unknown.
  double decode_share(double bytes, double seconds) const;
  // `chunk`: rows of one batch.  The floor is the larger of the arithmetic and one reading of the
  // weights a chunk.
  double prefill_share(std::uint32_t from,
                       std::uint32_t to,
                       std::uint32_t chunk,
                       double seconds) const;

 private:
  double row_flops(double position) const;

  const ModelConfig& config_;
  const StateLayout& layout_;
  const WeightTraffic& traffic_;
  const MachineReport& machine_;
};

}  // namespace ds4::bench
