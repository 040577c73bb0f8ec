#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/executor.h"
#include "model/weights.h"

namespace ds4::cuda {

// Rows of one batch up to which the kernels of decoding are used; larger ones round their inputs to
// f16.
inline constexpr std::uint32_t kDecodeRowsMax = 8;

struct CudaOptions {
  std::uint32_t thread_count = 0;  // that fill copy buffers while loading; 0: one per physical core
  std::uint32_t rows_max = 8192;   // rows of one batch: the prefill chunk
  std::uint32_t context = 32768;   // of the longest sequence expected: sizes the indexer's scratch
  RowCodec codec = RowCodec::kPacked;
  // Times every stage into this file, at the price of waiting after each; empty: no.
  std::string stage_times = {};
  // Bytes loaded so far and in all, now and then; may be empty.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

// Cards that this process can use; 0 without a driver.  Never throws.
int card_count();

// Device memory that is free now.  Throws Error(kUnsupported) when there is no card.
std::uint64_t free_device_bytes();

// Makes the CUDA executor: weights are copied to card 0, so `weights` need not outlive it.  Throws
// Error(kUnsupported) without a card or for a model outside what the kernels are built for,
// Error(kOutOfMemory) when it does not fit.
std::unique_ptr<Executor> make_cuda_executor(const ModelConfig& config,
                                             const Weights& weights,
                                             const CudaOptions& options);

// What an executor with one sequence of `context` tokens will hold on the card; nothing is
// allocated and no card is needed.
std::vector<MemoryItem> plan_cuda_memory(const ModelConfig& config,
                                         const Weights& weights,
                                         const CudaOptions& options,
                                         std::uint32_t context);

}  // namespace ds4::cuda
