#pragma once
#include <cstdint>
#include <string>

namespace ds4::cuda {

// What was put on a stream since it was last waited for.  The card reports an error some time after
// the launch that made it, so this is what can be said about where it came from; a plain value that
// costs a launch three stores.
struct LaunchTrail {
  const char* first = nullptr;  // stages, string literals
  const char* last = nullptr;
  std::uint32_t count = 0;

  void add(const char* stage) { add(LaunchTrail{stage, stage, 1}); }
  // A replayed recording's launches.
  void add(const LaunchTrail& more) {
    if (more.count == 0) return;
    if (count == 0) first = more.first;
    last = more.last;
    count += more.count;
  }
};

// The message of a lost device: noticed in `what`, with the driver's own words for it.
std::string device_failure_text(const char* what,
                                const std::string& reason,
                                const LaunchTrail& trail);

}  // namespace ds4::cuda
