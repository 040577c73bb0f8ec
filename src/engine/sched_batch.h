#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/session.h"
#include "sample/sampler.h"

namespace ds4 {

// The batch of one step of the Scheduler: rows of several sessions, run once, and what came of
// those whose logits were wanted, called results and numbered in the order of add().  A result is
// whole logits or, where the executor keeps those, the candidates that its draw depends on.
// Reserved once: a step allocates nothing.  Confined to the engine's thread.
class StepBatch {
 public:
  // For at most `results_max` results a step.
  StepBatch(Engine& engine, std::uint32_t results_max);
  StepBatch(const StepBatch&) = delete;
  StepBatch& operator=(const StepBatch&) = delete;
  ~StepBatch() = default;

  // What a result is for.
  struct Wanted {
    sample::SamplingOptions sampling;  // of its draw, unless draw() is told otherwise
    bool needs_logits = false;         // whole ones are needed for more than the draw
  };

  void clear();
  // Appends the next tokens of a session; `wanted` is null where no result is.
  void add(const Session& session, std::span<const TokenId> tokens, const Wanted* wanted);
  bool empty() const { return rows_.empty(); }
  std::size_t row_count() const { return rows_.size(); }
  std::size_t row_room() const;

  // Runs all rows, under the engine's throttle.  `split`: it pauses between layers too.
  void run(bool split);

  // [vocab_size], or none where they were left on the device.
  std::span<const float> logits(std::size_t result) const;
  // A token from `allowed`, or from all when that is null.
  TokenId draw(std::size_t result,
               sample::Sampler& sampler,
               const sample::SamplingOptions& options,
               const sample::TokenSet* allowed);

 private:
  BatchOutputs outputs();
  std::span<float> row_of_logits(std::size_t result);

  Engine& engine_;
  const std::size_t vocab_;
  std::vector<BatchRow> rows_;
  std::vector<Wanted> wanted_;
  std::vector<float> logits_;  // [results_max, vocab_size]
  std::vector<sample::CandidateQuery> queries_;
  std::vector<sample::CandidateSet> candidates_;  // [results_max] where the executor keeps logits
  bool has_candidates_ = false;                   // of this step
};

}  // namespace ds4
