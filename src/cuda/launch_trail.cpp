#include "cuda/launch_trail.h"

#include <fmt/format.h>

namespace ds4::cuda {

std::string device_failure_text(const char* what,
                                const std::string& reason,
                                const LaunchTrail& trail) {
  if (trail.count == 0) return fmt::format("the CUDA device failed in {}: {}", what, reason);
  if (trail.count == 1) return fmt::format("the CUDA device failed in {}: {}", trail.first, reason);
  return fmt::format(
      "the CUDA device failed in one of {} launches from '{}' to '{}', noticed in {}: {}; "
      "ds4-bench --stage-times FILE waits for each launch and names the one",
      trail.count, trail.first, trail.last, what, reason);
}

}  // namespace ds4::cuda
