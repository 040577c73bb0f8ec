#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/executor.h"
#include "base/hash.h"
#include "engine/throttle.h"
#include "model/config.h"
#include "tokenizer/tokenizer.h"

namespace ds4 {

// What a model file is, for people and for keys of stored state.
struct ModelInfo {
  std::string path;
  std::string name;
  std::string quantisation;    // e.g. "IQ2_XXS/Q2_K experts, Q8_0"
  Sha256Digest fingerprint{};  // of the weights' identity: stored state belongs to it
  std::uint64_t file_bytes = 0;
};

// One loaded model on one machine: the executor, the tokenizer and what belongs to both.  Made by
// runtime/open.h, which names the backends; the engine knows none.  tokenizer(), info() and
// config() may be read from any thread; everything else is confined to the engine's thread.
class Engine {
 public:
  // `resources` keeps alive what the executor reads, e.g. the mapped files.
  Engine(ModelInfo info,
         std::unique_ptr<Executor> executor,
         std::shared_ptr<const tokenizer::Tokenizer> tokenizer,
         std::shared_ptr<const void> resources);

  const ModelInfo& info() const { return info_; }
  const ModelConfig& config() const { return executor_->config(); }
  const tokenizer::Tokenizer& tokenizer() const { return *tokenizer_; }
  Executor& executor() { return *executor_; }
  Throttle& throttle() { return throttle_; }

  // Loads directions from a file of little-endian f32 [layer_count, width] and applies the scales,
  // each in [-100, 100].  Throws Error(kInvalidArgument) stating found and expected bytes.
  void load_steering(const std::string& path, float attention_scale, float ffn_scale);
  // Changes the FFN scale of loaded directions; state already computed stays as it is.
  void set_steering_scale(float ffn_scale);
  const Steering& steering() const { return steering_; }

 private:
  ModelInfo info_;
  std::shared_ptr<const void> resources_;  // outlives the executor: declared before it
  std::unique_ptr<Executor> executor_;
  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_;
  Throttle throttle_;
  Steering steering_;
};

}  // namespace ds4
