#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/log.h"
#include "convert/recipe.h"

namespace ds4::convert {

// How far a long job is: bytes written of the files' whole size, and the tensor just begun.  Called
// from the thread that called the job.
using ProgressSink = std::function<void(
    std::uint64_t done_bytes, std::uint64_t total_bytes, std::string_view tensor)>;

struct ConvertOptions {
  std::filesystem::path checkpoint;  // directory in the published layout
  std::filesystem::path output;      // GGUF file to write
  std::filesystem::path
      mtp_output{};                 // when given, the MTP block goes here instead of into `output`
  std::filesystem::path imatrix{};  // when given, importance for the encoders
  Recipe recipe{};
  std::size_t thread_count = 0;  // 0: one per physical core
};

// Converts a checkpoint to GGUF: config.json to metadata, tokenizer.json (when there is one) to the
// vocabulary, every tensor decoded to f32 and encoded as the recipe says.  Nothing appears under
// the output names before everything is written.  Memory: a few rows per thread; the inputs are
// mapped. Throws Error for anything wrong with the input, naming tensor, found and expected, or
// when the disk is full.
void convert_checkpoint(const ConvertOptions& options,
                        const LogSink& log,
                        const ProgressSink& progress);

}  // namespace ds4::convert
