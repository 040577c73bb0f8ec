#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/generate.h"
#include "engine/session.h"
#include "sample/sampler.h"

namespace ds4::app {

// What one answer tells while it is made.  Called on the thread that calls answer().
struct AnswerCallbacks {
  std::function<void(std::uint32_t done, std::uint32_t total)> prefill;
  std::function<void(std::string_view bytes)> token;  // may end inside a character
  std::function<bool()> stop_requested;  // asked before every prefill chunk and after every step
};

struct AnswerResult {
  std::vector<TokenId> tokens;         // without the stop token
  std::optional<FinishReason> finish;  // empty: interrupted
  bool in_reasoning = false;           // it ended before the reasoning did
  SyncResult prefill;
  double prefill_s = 0;
  double generate_s = 0;

  // "prefill: 12 tokens, 530.1 t/s; generation: 20 tokens, 75.2 t/s".
  std::string timing() const;
};

// Brings the session to `prompt` and generates.  Throws what Session::sync() and Session::eval()
// throw, but a stop is a result: without tokens when it came during the prefill.
AnswerResult answer(Session& session,
                    sample::Sampler& sampler,
                    std::span<const TokenId> prompt,
                    const GenerateOptions& options,
                    const AnswerCallbacks& callbacks);

}  // namespace ds4::app
