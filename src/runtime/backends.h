#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "backend/executor.h"
#include "backend/machine_report.h"
#include "model/weights.h"
#include "runtime/open.h"

namespace ds4 {

// What opening a model asks of a backend.  Each stands in a file of its own; a backend that is not
// part of the build has a file that says so.
struct BackendFactory {
  std::string_view name;
  // Whether this machine can run it now: false for a card that is not there.
  bool (*usable)();
  // Memory that its unmapped items come from; 0: unknown.  Throws Error(kUnsupported) when the
  // backend is not usable.
  std::uint64_t (*available_bytes)();
  std::vector<MemoryItem> (*plan)(const ModelConfig& config,
                                  const Weights& weights,
                                  const OpenOptions& options);
  // The info() of the executor to be made, without the device's name.  Null where the planned
  // memory is a device's own, in which the vocabulary and the sessions' share takes nothing.
  ExecutorInfo (*planned_info)(const Weights& weights, const OpenOptions& options);
  std::unique_ptr<Executor> (*make)(const ModelConfig& config,
                                    const Weights& weights,
                                    const OpenOptions& options);
  MachineReport (*report)(const OpenOptions& options);
  MachineState (*state)();
};

const BackendFactory& cpu_backend();
// Null when the build has no CUDA.
const BackendFactory* cuda_backend();

// Rows of one batch: what was asked for or `standard`, no more than the context, and room for a
// speculative pass.
std::uint32_t rows_of_batch(const OpenOptions& options, std::uint32_t standard);

}  // namespace ds4
