#include "conversation.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "prompt.h"
#include "tokenizer/markers.h"

namespace ds4::app {

Conversation::Conversation(Engine& engine, ConversationOptions options)
    : engine_(engine),
      options_(std::move(options)),
      ladder_(effort_ladder(engine.info().name)),
      session_(std::make_unique<Session>(engine, SessionOptions{.context = options_.context})),
      sampler_(engine.config().vocab_size, options_.seed) {
  rebuild_head();
  body_ = prefix_tokens(engine_.tokenizer(), options_.prefix);
}

chat::ThinkMode Conversation::effective_think() const {
  return chat::fitting_think_mode(options_.think, options_.context);
}

chat::RenderOptions Conversation::render_options() const {
  return {.think = effective_think(), .ladder = ladder_};
}

void Conversation::rebuild_head() {
  head_ = head_tokens(engine_.tokenizer(), render_options(), options_.system);
}

void Conversation::close_turn(const AnswerResult& result) {
  const auto& tokenizer = engine_.tokenizer();
  body_.insert(body_.end(), result.tokens.begin(), result.tokens.end());
  if (result.in_reasoning) body_.push_back(tokenizer.marker(tokenizer::kThinkEndMarker));
  body_.push_back(tokenizer.eos());
}

GenerateOptions Conversation::generate_options() const {
  const auto& tokenizer = engine_.tokenizer();
  GenerateOptions options{.sampling = options_.sampling,
                          .token_max = options_.token_max,
                          .draft_count = options_.draft_count,
                          .stop = tokenizer.eos(),
                          .reasoning_end = {}};
  if (chat::is_thinking(options_.think))
    options.reasoning_end = tokenizer.marker(tokenizer::kThinkEndMarker);
  return options;
}

AnswerResult Conversation::ask(std::string_view text, const AnswerCallbacks& callbacks) {
  const std::size_t mark = body_.size();
  try {
    const auto turn = user_turn_tokens(engine_.tokenizer(), render_options(), text);
    body_.insert(body_.end(), turn.begin(), turn.end());
    AnswerResult result = answer(*session_, sampler_, transcript(), generate_options(), callbacks);
    if (!result.finish && result.tokens.empty()) {
      body_.resize(mark);
      return result;
    }
    close_turn(result);
    ++turn_count_;
    return result;
  } catch (...) {
    body_.resize(mark);
    throw;
  }
}

void Conversation::set_think(chat::ThinkMode think) {
  options_.think = think;
  rebuild_head();
}

void Conversation::set_context(std::uint32_t context) {
  if (context > engine_.config().context_max) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a context of {} tokens; this model was made for {} at most", context,
                            engine_.config().context_max));
  }
  if (context < length() + 2) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("a context of {} tokens; the conversation has {} already", context, length()));
  }
  // Both at once may be more than there is: the old one goes first, and comes back on failure.
  session_.reset();
  try {
    session_ = std::make_unique<Session>(engine_, SessionOptions{.context = context});
  } catch (...) {
    session_ = std::make_unique<Session>(engine_, SessionOptions{.context = options_.context});
    throw;
  }
  options_.context = context;
  rebuild_head();
}

std::vector<TokenId> Conversation::transcript() const {
  std::vector<TokenId> tokens;
  tokens.reserve(length());
  tokens.insert(tokens.end(), head_.begin(), head_.end());
  tokens.insert(tokens.end(), body_.begin(), body_.end());
  return tokens;
}

void Conversation::save(KeptChats& chats, std::string_view name) {
  chats.save(name,
             {.model = engine_.info().name,
              .system = options_.system,
              .think = options_.think,
              .turn_count = turn_count_,
              .head_count = static_cast<std::uint32_t>(head_.size()),
              .tokens = transcript()},
             *session_);
}

std::uint32_t Conversation::load(KeptChats& chats, std::string_view name) {
  KeptChat kept = chats.read(name);
  if (kept.tokens.size() + 2 > options_.context) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("'{}' holds {} tokens; the context is {}: make it larger with /ctx",
                            name, kept.tokens.size(), options_.context));
  }
  const auto in_vocabulary = [&](TokenId token) {
    return token.value() >= 0 &&
           static_cast<std::uint32_t>(token.value()) < engine_.config().vocab_size;
  };
  if (!std::all_of(kept.tokens.begin(), kept.tokens.end(), in_vocabulary)) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("'{}' belongs to another model ({})", name, kept.model));
  }
  const std::uint32_t restored = chats.restore(name, *session_);
  const auto head_end = kept.tokens.begin() + static_cast<std::ptrdiff_t>(kept.head_count);
  options_.system = std::move(kept.system);
  options_.think = kept.think;
  turn_count_ = kept.turn_count;
  head_.assign(kept.tokens.begin(), head_end);
  body_.assign(head_end, kept.tokens.end());
  return restored;
}

}  // namespace ds4::app
