#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/executor.h"
#include "model/weights.h"

namespace ds4::cpu {

struct CpuOptions {
  std::uint32_t thread_count = 0;  // 0: one per physical core
  std::uint32_t rows_max = 512;    // rows of one batch: the prefill chunk
  RowCodec codec = RowCodec::kPacked;
  bool warm_weights = false;  // read every weight page now, each near the threads that will use it
};

// Makes the CPU executor.  `weights` must outlive it.
std::unique_ptr<Executor> make_cpu_executor(const ModelConfig& config,
                                            const Weights& weights,
                                            const CpuOptions& options);

// What an executor with one sequence of `context` tokens will hold; nothing is allocated.
std::vector<MemoryItem> plan_cpu_memory(const ModelConfig& config,
                                        const Weights& weights,
                                        const CpuOptions& options,
                                        std::uint32_t context);
// Its info(), without the device's name.
ExecutorInfo planned_cpu_info(const Weights& weights, const CpuOptions& options);

}  // namespace ds4::cpu
