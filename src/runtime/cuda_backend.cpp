#include <string>

#include <fmt/format.h>

#include "cuda/cuda_executor.h"
#include "runtime/backends.h"

namespace ds4 {

namespace {

cuda::CudaOptions options_of(const OpenOptions& options) {
  return {.thread_count = options.thread_count,
          .rows_max = rows_of_batch(options, cuda::CudaOptions{}.rows_max),
          .context = options.context,
          .codec = options.codec};
}

// A line for every tenth of the weights.
std::function<void(std::uint64_t, std::uint64_t)> progress_lines(const LogSink& sink) {
  return [&sink, tenth = std::uint64_t{0}](std::uint64_t done, std::uint64_t total) mutable {
    const std::uint64_t now = done * 10 / total;
    if (now == tenth) return;
    tenth = now;
    log(sink, LogLevel::kInfo,
        fmt::format("loading weights: {} % of {} MiB", now * 10, total >> 20));
  };
}

}  // namespace

const BackendFactory* cuda_backend() {
  static const BackendFactory factory{
      .name = "cuda",
      .usable = [] { return cuda::card_count() > 0; },
      .available_bytes = cuda::free_device_bytes,
      .plan =
          [](const ModelConfig& config, const Weights& weights, const OpenOptions& options) {
            return cuda::plan_cuda_memory(config, weights, options_of(options), options.context);
          },
      .make =
          [](const ModelConfig& config, const Weights& weights, const OpenOptions& options) {
            cuda::CudaOptions cuda_options = options_of(options);
            cuda_options.stage_times = options.stage_times;
            cuda_options.progress = progress_lines(options.log);
            return cuda::make_cuda_executor(config, weights, cuda_options);
          }};
  return &factory;
}

}  // namespace ds4
