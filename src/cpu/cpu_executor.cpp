#include "cpu/cpu_executor.h"

#include "backend/graph_executor.h"
#include "cpu/machine.h"

namespace ds4::cpu {

std::unique_ptr<Executor> make_cpu_executor(const ModelConfig& config,
                                            const Weights& weights,
                                            const CpuOptions& options) {
  const LayerSlice slice{weights.first_layer,
                         weights.first_layer + static_cast<std::uint32_t>(weights.layers.size())};
  const StateLayout layout(config, options.codec, weights.mtp.has_value());
  return std::make_unique<GraphExecutor>(config, layout, slice,
                                         std::make_unique<CpuMachine>(config, weights, options));
}

}  // namespace ds4::cpu
