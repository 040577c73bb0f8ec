#include "perplexity.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "sample/sampler.h"

namespace ds4::app {

namespace {

// Rows of one batch: enough to read the weights seldom, few enough that their logits stay small
// (64 rows of a vocabulary of 129,280 are 33 MB).
constexpr std::uint32_t kRowsMax = 64;

// A sequence of the executor for as long as the measurement runs.
class ScopedSequence {
 public:
  ScopedSequence(Executor& executor, std::uint32_t context)
      : executor_(executor),
        id_(executor.open_sequence(context)) {}
  ScopedSequence(const ScopedSequence&) = delete;
  ScopedSequence& operator=(const ScopedSequence&) = delete;
  ~ScopedSequence() { executor_.close_sequence(id_); }
  SequenceId id() const { return id_; }

 private:
  Executor& executor_;
  SequenceId id_;
};

void check_length(std::size_t token_count, std::uint32_t context) {
  if (token_count <= kUnscoredTokens) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the text has {} tokens; scoring starts behind the first {}",
                            token_count, kUnscoredTokens));
  }
  if (token_count > context) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("the text has {} tokens; the context is {}: choose a larger one with "
                            "-c, or a shorter text",
                            token_count, context));
  }
}

}  // namespace

Perplexity measure_perplexity(Engine& engine,
                              std::uint32_t context,
                              std::span<const TokenId> tokens,
                              const std::function<void(std::uint32_t, std::uint32_t)>& progress) {
  check_length(tokens.size(), context);
  Executor& executor = engine.executor();
  const ScopedSequence sequence(executor, context);
  const std::uint32_t rows_max = std::min(kRowsMax, executor.info().rows_max);
  const std::size_t vocab = engine.config().vocab_size;
  std::vector<float> logits(rows_max * vocab);
  std::vector<BatchRow> rows;
  Perplexity result{.token_count = tokens.size(), .scored_count = 0, .nll = 0};
  // The last token is predicted and predicts nothing.
  const auto run_count = static_cast<std::uint32_t>(tokens.size() - 1);
  for (std::uint32_t first = 0; first < run_count; first += rows_max) {
    const std::uint32_t end = std::min(first + rows_max, run_count);
    rows.clear();
    for (std::uint32_t i = first; i < end; ++i)
      rows.push_back({tokens[i], Position{i}, sequence.id(), true});
    engine.throttle().start();
    executor.run({rows}, {.logits = Rows(logits.data(), {rows.size(), vocab})});
    engine.throttle().pause();
    for (std::uint32_t i = std::max(first, kUnscoredTokens - 1); i < end; ++i) {
      const std::span<const float> row(logits.data() + (i - first) * vocab, vocab);
      result.nll -= sample::token_logprob(row, tokens[i + 1]);
      ++result.scored_count;
    }
    progress(end, run_count);
  }
  return result;
}

}  // namespace ds4::app
