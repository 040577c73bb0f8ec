#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/session.h"
#include "sample/sampler.h"
#include "tensor/strong.h"

namespace ds4 {

// Why an answer ended.
enum class FinishReason {
  kStop,     // the model ended it
  kLength,   // GenerateOptions::token_max tokens
  kContext,  // the session is full
};

// Lower-case name, for messages.
std::string_view finish_reason_name(FinishReason reason);

struct GenerateOptions {
  sample::SamplingOptions sampling = {};
  std::uint32_t token_max = 50000;  // of the answer, reasoning included
  // Tokens that the MTP block may draft ahead of each step; used by greedy sampling alone, and only
  // where the model has such a block.  The answer is the same with any number.
  std::uint32_t draft_count = 0;
  TokenId stop{};  // ends the answer and is no part of it
  // Given when the prompt opened reasoning: the marker that closes it.  An answer that would stop
  // before that is continued behind the marker, so that it never ends as reasoning alone.
  std::optional<TokenId> reasoning_end = {};
};

// One answer, token by token: samples from the session's logits and extends the session.  The last
// token handed out is evaluated by the step after it, so it can be shown before it costs anything;
// session.tokens() then lacks it and the next sync() adds it.  Reserves at construction; a step
// allocates nothing.  Confined to the engine's thread; session and sampler must outlive it.
class Generator {
 public:
  // `session` must have logits: call it after Session::sync().
  Generator(Session& session, sample::Sampler& sampler, const GenerateOptions& options);

  // The next token, or several when drafts were accepted; empty once the answer has ended.  Valid
  // while this object lives.  Throws what Session::eval() throws.
  std::span<const TokenId> next();

  // Why next() returned nothing; empty before.
  std::optional<FinishReason> finish() const { return finish_; }
  // The whole answer so far, without the stop token.
  std::span<const TokenId> tokens() const { return tokens_; }
  // True from the opening of reasoning to the token that closes it.
  bool reasoning() const { return reasoning_open_; }

 private:
  std::size_t remaining() const { return token_max_ - tokens_.size(); }
  bool evaluate_last();
  bool append(TokenId token);

  Session& session_;
  sample::Sampler& sampler_;
  const GenerateOptions options_;
  const std::size_t token_max_;  // the smaller of the options' and the session's room
  const bool speculative_;
  bool reasoning_open_;
  std::optional<FinishReason> finish_;
  std::vector<TokenId> tokens_;  // capacity: token_max_
};

}  // namespace ds4
