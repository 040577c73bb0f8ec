#include "engine/sched_batch.h"

#include <algorithm>

#include "base/error.h"

namespace ds4 {

StepBatch::StepBatch(Engine& engine, std::uint32_t results_max)
    : engine_(engine),
      vocab_(engine.config().vocab_size) {
  rows_.reserve(engine.executor().info().rows_max);
  wanted_.reserve(results_max);
  logits_.resize(results_max * vocab_);
  if (engine.executor().info().candidate_rows_max == 0) return;
  queries_.reserve(results_max);
  candidates_.resize(results_max);
  for (sample::CandidateSet& set : candidates_)
    set.reserve();
}

void StepBatch::clear() {
  rows_.clear();
  wanted_.clear();
}

void StepBatch::add(const Session& session, std::span<const TokenId> tokens, const Wanted* wanted) {
  session.stage(tokens, wanted != nullptr, rows_);
  if (wanted != nullptr) wanted_.push_back(*wanted);
}

std::size_t StepBatch::row_room() const {
  return engine_.executor().info().rows_max - rows_.size();
}

void StepBatch::run(bool split) {
  const BatchOutputs wanted_outputs = outputs();
  Throttle& throttle = engine_.throttle();
  throttle.start();
  engine_.executor().set_layer_hook(
      split && throttle.percent() < 100
          ? [](void* context) { static_cast<Throttle*>(context)->pause(); }
          : Executor::LayerHook{},
      &throttle);
  engine_.executor().run({rows_}, wanted_outputs);
  throttle.pause();
}

// Candidates where all results are draws alone; else whole rows, as one that is more needs them.
BatchOutputs StepBatch::outputs() {
  has_candidates_ = !wanted_.empty() &&
                    wanted_.size() <= engine_.executor().info().candidate_rows_max &&
                    std::none_of(wanted_.begin(), wanted_.end(),
                                 [](const Wanted& it) { return it.needs_logits; });
  if (wanted_.empty()) return {};
  if (!has_candidates_) return {.logits = Rows(logits_.data(), {wanted_.size(), vocab_})};
  queries_.clear();
  for (const Wanted& it : wanted_)
    queries_.push_back({.options = it.sampling});
  return {.queries = queries_, .candidates = std::span(candidates_).first(wanted_.size())};
}

std::span<float> StepBatch::row_of_logits(std::size_t result) {
  return std::span(logits_).subspan(result * vocab_, vocab_);
}

std::span<const float> StepBatch::logits(std::size_t result) const {
  DS4_CHECK(result < wanted_.size());
  if (has_candidates_) return {};
  return std::span(logits_).subspan(result * vocab_, vocab_);
}

TokenId StepBatch::draw(std::size_t result,
                        sample::Sampler& sampler,
                        const sample::SamplingOptions& options,
                        const sample::TokenSet* allowed) {
  DS4_CHECK(result < wanted_.size());
  if (!has_candidates_) return sampler.sample(logits(result), options, allowed);
  if (allowed == nullptr)
    if (const auto token = sampler.sample(candidates_[result], options)) return *token;
  // What the candidates cannot tell, the logits do; the first row holds no result now.
  const std::span<float> fetched = row_of_logits(0);
  engine_.executor().read_logits(result, fetched);
  return sampler.sample(fetched, options, allowed);
}

}  // namespace ds4
