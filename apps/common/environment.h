#pragma once
#include <cstdlib>

namespace ds4::app {

// A variable of the environment, null when it is not set.  Safe from any thread: none of ours
// changes the environment.
inline const char* environment(const char* name) {
  return std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
}

}  // namespace ds4::app
