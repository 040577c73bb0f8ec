#include <algorithm>
#include <fstream>
#include <string>

#include "cpu/cpu_executor.h"
#include "runtime/backends.h"
#include "runtime/cpu_report.h"

namespace ds4 {

namespace {

std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::uint64_t kibibytes = 0;
  for (std::string rest; file >> key >> kibibytes; std::getline(file, rest))
    if (key == "MemAvailable:") return kibibytes * 1024;
  return 0;
}

// Here every batch is computed as its rows alone would be: OpenOptions::quality asks for nothing.
cpu::CpuOptions options_of(const OpenOptions& options) {
  return {.thread_count = options.thread_count,
          .rows_max = rows_of_batch(options, cpu::CpuOptions{}.rows_max),
          .codec = options.codec,
          .warm_weights = options.warm_weights};
}

}  // namespace

std::uint32_t rows_of_batch(const OpenOptions& options, std::uint32_t standard) {
  const std::uint32_t asked = options.rows_max != 0 ? options.rows_max : standard;
  return std::max<std::uint32_t>(std::min(asked, options.context), 16);
}

const BackendFactory& cpu_backend() {
  static const BackendFactory kFactory{
      .name = "cpu",
      .usable = [] { return true; },
      .available_bytes = available_memory,
      .plan =
          [](const ModelConfig& config, const Weights& weights, const OpenOptions& options) {
            return cpu::plan_cpu_memory(config, weights, options_of(options), options.context);
          },
      .planned_info =
          [](const Weights& weights, const OpenOptions& options) {
            return cpu::planned_cpu_info(weights, options_of(options));
          },
      .make =
          [](const ModelConfig& config, const Weights& weights, const OpenOptions& options) {
            return cpu::make_cpu_executor(config, weights, options_of(options));
          },
      .report = [](const OpenOptions& options) { return report_cpu(options.thread_count); },
      .state = cpu_state};
  return kFactory;
}

}  // namespace ds4
