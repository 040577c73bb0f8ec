#include "frontiers.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::bench {

std::vector<std::uint32_t> frontiers_of(const Sweep& sweep) {
  if (sweep.start == 0 || sweep.start > sweep.last) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a sweep from {} to {} tokens; expected 1 <= --ctx-start <= --ctx-max",
                            sweep.start, sweep.last));
  }
  if (!(sweep.factor >= 1) || (sweep.factor == 1 && sweep.increment == 0)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a sweep by {} tokens, times {}, does not advance; expected "
                            "--step-incr >= 1 or --step-mul > 1",
                            sweep.increment, sweep.factor));
  }
  std::vector<std::uint32_t> frontiers;
  std::uint64_t at = sweep.start;
  while (at < sweep.last) {
    frontiers.push_back(static_cast<std::uint32_t>(at));
    const double next = std::ceil(static_cast<double>(at) * sweep.factor);
    at = sweep.factor > 1 ? std::max(at + 1, static_cast<std::uint64_t>(std::min(next, 1e15)))
                          : at + sweep.increment;
  }
  frontiers.push_back(sweep.last);
  return frontiers;
}

}  // namespace ds4::bench
