#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "engine/engine.h"

namespace ds4::app {

struct Perplexity {
  std::uint64_t token_count = 0;
  std::uint64_t scored_count = 0;
  double nll = 0;  // sum over the scored tokens, in nats
  double mean() const { return nll / static_cast<double>(scored_count); }
};

// Tokens at the start of a text that are context alone.
inline constexpr std::uint32_t kUnscoredTokens = 32;

// How well the model predicts each token of a text from those before it, behind the first
// kUnscoredTokens.  Every token is run once, in batches.  Throws Error(kInvalidArgument) for a text
// that is too short to score anything, Error(kContextOverflow) for one beyond `context`.
Perplexity measure_perplexity(Engine& engine,
                              std::uint32_t context,
                              std::span<const TokenId> tokens,
                              const std::function<void(std::uint32_t, std::uint32_t)>& progress);

}  // namespace ds4::app
