#include <algorithm>

#include "cuda/cuda_executor.h"
#include "cuda/report.h"
#include "runtime/backends.h"

namespace ds4 {

namespace {

cuda::CudaOptions options_of(const OpenOptions& options) {
  const std::uint32_t rows_max = rows_of_batch(options, cuda::CudaOptions{}.rows_max);
  return {.thread_count = options.thread_count,
          .rows_max = options.quality ? std::min(rows_max, cuda::kDecodeRowsMax) : rows_max,
          .context = options.context,
          .codec = options.codec};
}

// What a card holds beside the plan: recorded passes, kernels and the driver's own stacks.
constexpr std::uint64_t kReserveBytes = std::uint64_t{512} << 20;

}  // namespace

const BackendFactory* cuda_backend() {
  static const BackendFactory kFactory{
      .name = "cuda",
      .usable = [] { return cuda::card_count() > 0; },
      .available_bytes = cuda::free_device_bytes,
      .plan =
          [](const ModelConfig& config, const Weights& weights, const OpenOptions& options) {
            auto items =
                cuda::plan_cuda_memory(config, weights, options_of(options), options.context);
            items.push_back({"reserve", kReserveBytes});
            return items;
          },
      .planned_info = nullptr,
      .make =
          [](const ModelConfig& config, const Weights& weights, const OpenOptions& options) {
            cuda::CudaOptions cuda_options = options_of(options);
            cuda_options.stage_times = options.stage_times;
            cuda_options.progress = options.load_progress;
            return cuda::make_cuda_executor(config, weights, cuda_options);
          },
      .report = [](const OpenOptions&) { return cuda::report_card(); },
      .state = cuda::card_state};
  return &kFactory;
}

}  // namespace ds4
