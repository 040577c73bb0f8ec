#include "cuda/cuda_executor.h"

#include "backend/graph_executor.h"
#include "cuda/device.h"
#include "cuda/machine.h"

namespace ds4::cuda {

int card_count() {
  return device_count();
}

std::uint64_t free_device_bytes() {
  return open_device().free_bytes;
}

std::unique_ptr<Executor> make_cuda_executor(const ModelConfig& config,
                                             const Weights& weights,
                                             const CudaOptions& options) {
  const LayerSlice slice{weights.first_layer,
                         weights.first_layer + static_cast<std::uint32_t>(weights.layers.size())};
  const StateLayout layout(config, options.codec, weights.mtp.has_value());
  return std::make_unique<GraphExecutor>(config, layout, slice,
                                         std::make_unique<CudaMachine>(config, weights, options));
}

}  // namespace ds4::cuda
