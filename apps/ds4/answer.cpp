#include "answer.h"

#include <chrono>
#include <stop_token>
#include <string>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::app {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// False when it was stopped.
bool prefill(Session& session,
             std::span<const TokenId> prompt,
             const AnswerCallbacks& callbacks,
             AnswerResult& result) {
  const auto start = Clock::now();
  std::stop_source stop;
  if (callbacks.stop_requested()) stop.request_stop();
  const auto progress = [&](std::uint32_t done, std::uint32_t total) {
    callbacks.prefill(done, total);
    if (callbacks.stop_requested()) stop.request_stop();
  };
  bool stopped = false;
  try {
    result.prefill = session.sync(prompt, {.progress = progress, .stop = stop.get_token()});
    stopped = callbacks.stop_requested();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    stopped = true;
  }
  result.prefill_s = seconds_since(start);
  return !stopped;
}

double rate(std::size_t token_count, double seconds) {
  return seconds > 0 ? static_cast<double>(token_count) / seconds : 0;
}

}  // namespace

AnswerResult answer(Session& session,
                    sample::Sampler& sampler,
                    std::span<const TokenId> prompt,
                    const GenerateOptions& options,
                    const AnswerCallbacks& callbacks) {
  AnswerResult result;
  result.in_reasoning = options.reasoning_end.has_value();
  if (!prefill(session, prompt, callbacks, result)) return result;
  const auto& tokenizer = session.engine().tokenizer();
  const auto start = Clock::now();
  Generator generator(session, sampler, options);
  for (auto tokens = generator.next(); !tokens.empty(); tokens = generator.next()) {
    for (const TokenId token : tokens)
      callbacks.token(tokenizer.token_bytes(token));
    if (callbacks.stop_requested()) break;
  }
  result.generate_s = seconds_since(start);
  result.tokens.assign(generator.tokens().begin(), generator.tokens().end());
  result.finish = generator.finish();
  result.in_reasoning = generator.reasoning();
  return result;
}

std::string AnswerResult::timing() const {
  return fmt::format("prefill: {} tokens, {:.1f} t/s; generation: {} tokens, {:.1f} t/s",
                     prefill.evaluated, rate(prefill.evaluated, prefill_s), tokens.size(),
                     rate(tokens.size(), generate_s));
}

}  // namespace ds4::app
