#pragma once
#include <cstdint>
#include <vector>

namespace ds4::bench {

// The context lengths to measure at: from `start` on, each the one before plus `increment`, or
// times `factor` when that is more than 1 (at least 1 more), and always `last`.
struct Sweep {
  std::uint32_t start = 2048;
  std::uint32_t last = 32768;
  std::uint32_t increment = 2048;
  double factor = 1;
};

// Ascending, without repetition.  Throws Error(kInvalidArgument) when start is 0 or behind last, or
// the sweep would not advance.
std::vector<std::uint32_t> frontiers_of(const Sweep& sweep);

}  // namespace ds4::bench
