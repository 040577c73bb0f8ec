#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/executor.h"
#include "backend/machine_report.h"
#include "base/log.h"
#include "engine/engine.h"
#include "model/traffic.h"

namespace ds4 {

// From a model file to an Engine: the one place that names backends.
struct OpenOptions {
  std::filesystem::path model;
  std::filesystem::path mtp;       // a separate file with the MTP block; empty: use the model's own
  std::string backend = "auto";    // "auto", "cpu", "cuda"
  std::uint32_t thread_count = 0;  // 0: one per physical core
  std::uint32_t rows_max = 0;      // rows of one batch, the prefill chunk; 0: the backend's default
  std::uint32_t context = 32768;   // of the sessions that the plan is for; 0: default_context()
  std::uint32_t session_count = 1;
  RowCodec codec = RowCodec::kPacked;
  bool use_mtp = true;             // false leaves the MTP block out even when there is one
  bool warm_weights = false;       // read every weight page before returning
  bool quality = false;            // prompts go through the kernels of decoding, a few rows a batch
  std::string stage_times;         // file for seconds by stage (cuda); waits after every launch
  std::filesystem::path steering;  // directions; empty: none
  float steering_attention_scale = 0;
  float steering_ffn_scale = 0;
  // Weights on their way to a device, now and then and at the end; may be empty.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> load_progress;
  LogSink log;
};

// What loading would take, computed from the file's header alone.
struct MemoryPlan {
  std::string backend;
  std::vector<MemoryItem> items;
  std::uint64_t available_bytes = 0;      // of the memory that unmapped items come from; 0: unknown
  std::uint64_t allocated_bytes() const;  // sum of the items that are not mapped
  std::uint64_t mapped_bytes() const;     // sum of the others
  // One line an item with its size, then the sum and what is available; a last line when the mapped
  // items do not fit beside the allocated ones.
  std::string text() const;
};

// Throws as open_engine() does for a file that cannot be run.
MemoryPlan plan_memory(const OpenOptions& options);

// An executor over a model file, without a vocabulary: for tools that work on token ids.
struct OpenedExecutor {
  std::shared_ptr<const void> resources;  // the mapped files; declared first, so that it goes last
  WeightTraffic traffic;
  std::uint64_t weight_bytes = 0;  // of the file's tensors that are bound
  std::unique_ptr<Executor> executor;
};

// As open_engine(), but the file needs no vocabulary.
OpenedExecutor open_executor(const OpenOptions& options);

// Loads.  Throws Error(kNotFound | kBadFormat | kUnsupported) for the file, Error(kOutOfMemory)
// with the plan's numbers when it does not fit, Error(kUnsupported) for a backend that is not built
// in.
std::unique_ptr<Engine> open_engine(const OpenOptions& options);

// The machine that the options choose, and what it can do: takes some tenths of a second and,
// beside the weights, 1 GiB.  Throws as open_engine() does for the backend.
MachineReport report_machine(const OpenOptions& options);
// The same machine at this moment.
MachineState machine_state(const OpenOptions& options);

// The context of who asks for none: 32768 tokens, or what the model was made for when that is less.
std::uint32_t default_context(const ModelConfig& config);

// Names of the backends in this build, the default first.
std::vector<std::string> backend_names();

// The file that runs when none is named: ds4flash.gguf in the working directory, else the embedded
// small model beside the program or in the source tree.  Throws Error(kNotFound) naming the places.
std::filesystem::path default_model_path();

}  // namespace ds4
