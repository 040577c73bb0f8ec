#include "runtime/cpu_report.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <sys/utsname.h>

#include "base/thread_pool.h"

namespace ds4 {

namespace {

constexpr std::size_t kCopyBytes = std::size_t{256} << 20;
constexpr std::size_t kSliceBytes = std::size_t{4} << 20;
constexpr int kRounds = 4;

// Calls `take(value)` with what stands behind "KEY : " on every such line of /proc/cpuinfo.
template <class Take>
void each_value(std::string_view key, const Take& take) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos && line.starts_with(key)) take(line.substr(colon + 2));
  }
}

double copy_gbps(std::uint32_t thread_count) {
  ThreadPool pool(thread_count);
  std::vector<std::byte> from(kCopyBytes);
  std::vector<std::byte> to(kCopyBytes);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(kCopyBytes / kSliceBytes, [&](std::size_t i) {
      std::memcpy(to.data() + i * kSliceBytes, from.data() + i * kSliceBytes, kSliceBytes);
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * kCopyBytes / seconds * 1e-9);
  }
  return best;
}

}  // namespace

MachineReport report_cpu(std::uint32_t thread_count) {
  MachineReport report;
  each_value("model name", [&](std::string name) { report.device = std::move(name); });
  utsname system{};
  if (uname(&system) == 0) report.driver = fmt::format("{} {}", system.sysname, system.release);
  double kilohertz = 0;
  if (std::ifstream("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq") >> kilohertz)
    report.clock_max_mhz = kilohertz * 1e-3;
  report.copy_gbps = copy_gbps(thread_count);
  return report;
}

MachineState cpu_state() {
  MachineState state;
  double sum = 0;
  int count = 0;
  each_value("cpu MHz", [&](const std::string& text) {
    sum += std::strtod(text.c_str(), nullptr);
    ++count;
  });
  if (count > 0) state.clock_mhz = sum / count;
  return state;
}

}  // namespace ds4
