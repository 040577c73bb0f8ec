#include "engine/generate.h"

#include <algorithm>

#include "base/error.h"

namespace ds4 {

namespace {

std::size_t room_for_answer(const Session& session, const GenerateOptions& options) {
  const std::uint32_t used = std::min(session.length() + 1, session.context());
  return std::min(options.token_max, session.context() - used);
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
  }
  DS4_CHECK(false);
  return "";
}

Generator::Generator(Session& session, sample::Sampler& sampler, const GenerateOptions& options)
    : session_(session),
      sampler_(sampler),
      options_(options),
      token_max_(room_for_answer(session, options)),
      speculative_(options.draft_count > 0 && options.sampling.temperature <= 0 &&
                   session.engine().executor().info().has_mtp),
      reasoning_open_(options.reasoning_end.has_value()) {
  DS4_CHECK(session.has_logits());
  tokens_.reserve(token_max_);
}

std::span<const TokenId> Generator::next() {
  const std::size_t before = tokens_.size();
  if (finish_) return {};
  if (remaining() == 0) {
    finish_ = tokens_.size() < options_.token_max ? FinishReason::kContext : FinishReason::kLength;
    return {};
  }
  const bool has_logits = tokens_.empty() || evaluate_last();
  if (has_logits && remaining() > 0) append(session_.draw(sampler_, options_.sampling));
  return std::span<const TokenId>(tokens_).subspan(before);
}

// Runs the last token, and drafts after it.  False when the session's logits do not continue
// tokens_: the answer has ended, or its last token has not been run.
bool Generator::evaluate_last() {
  const TokenId last = tokens_.back();
  if (!speculative_ || remaining() < 2) {
    session_.eval_for_draw(last, options_.sampling);
    return true;
  }
  const auto draft_count =
      static_cast<std::uint32_t>(std::min<std::size_t>(options_.draft_count, remaining() - 1));
  const auto accepted = session_.eval_speculative(last, draft_count, options_.stop);
  for (const TokenId token : accepted.subspan(1)) {
    if (token == options_.stop && reasoning_open_) session_.rewind(session_.length() - 1);
    if (!append(token)) return false;
  }
  return true;
}

// False when `token` was the stop, which ended the answer or was replaced.
bool Generator::append(TokenId token) {
  const bool stops = token == options_.stop;
  if (stops && !reasoning_open_) {
    finish_ = FinishReason::kStop;
    return false;
  }
  if (stops) token = *options_.reasoning_end;
  if (token == options_.reasoning_end) reasoning_open_ = false;
  tokens_.push_back(token);
  return !stops;
}

}  // namespace ds4
