#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/log.h"
#include "convert/checkpoint_converter.h"
#include "convert/model_shape.h"
#include "convert/recipe.h"

namespace ds4::convert {

struct SynthOptions {
  ModelShape shape;
  Recipe recipe;
  bool with_mtp = false;            // include the MTP block
  std::filesystem::path tokenizer;  // tokenizer.json to embed; empty: one token per byte
  std::filesystem::path output;
  std::uint64_t seed = 1;
  std::size_t thread_count = 0;  // 0: one per physical core
};

// Writes a file of the given shape with random weights, so that speed and capacity can be tried
// without a download.  Blocks are made directly in their format, scaled so that activations stay
// finite through every layer; the text such a model writes is noise.  The bytes depend on shape,
// recipe and seed alone, not on the thread count.  Throws Error(kIo) when the disk is full.
void synthesize(const SynthOptions& options, const LogSink& log, const ProgressSink& progress);

}  // namespace ds4::convert
