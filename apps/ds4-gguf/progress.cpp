#include "progress.h"

#include <chrono>
#include <cstdio>
#include <memory>

#include <fmt/format.h>
#include <unistd.h>

ds4::LogSink stderr_log(bool verbose) {
  return [verbose](ds4::LogLevel level, std::string_view message) {
    if (level < ds4::LogLevel::kWarning && !verbose) return;
    fmt::print(stderr, "ds4-gguf: {}\n", message);
  };
}

ds4::convert::ProgressSink terminal_progress() {
  if (::isatty(STDERR_FILENO) == 0) return {};
  using Clock = std::chrono::steady_clock;
  const auto last = std::make_shared<Clock::time_point>();
  return [last](std::uint64_t done_bytes, std::uint64_t total_bytes, std::string_view tensor) {
    constexpr std::chrono::milliseconds kInterval{200};
    const bool at_end = done_bytes >= total_bytes;
    if (!at_end && Clock::now() - *last < kInterval) return;
    *last = Clock::now();
    constexpr double kGigabyte = 1e9;
    fmt::print(stderr, "\r\x1b[K{:5.1f} %  {:.2f} of {:.2f} GB  {}",
               100.0 * static_cast<double>(done_bytes) / static_cast<double>(total_bytes),
               static_cast<double>(done_bytes) / kGigabyte,
               static_cast<double>(total_bytes) / kGigabyte, tensor);
    if (at_end) fmt::print(stderr, "\r\x1b[K");
    std::fflush(stderr);
  };
}
