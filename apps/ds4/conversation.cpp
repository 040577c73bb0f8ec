#include "conversation.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "prompt.h"
#include "saved_chat.h"
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

void Conversation::save(const std::filesystem::path& path) const {
  write_saved_chat(path, {.model = engine_.info().name,
                          .system = options_.system,
                          .think = options_.think,
                          .turn_count = turn_count_,
                          .head = head_,
                          .body = body_,
                          .state = session_->length() == 0 ? std::vector<std::byte>{}
                                                           : session_->export_state()});
}

void Conversation::load(const std::filesystem::path& path) {
  SavedChat saved = read_saved_chat(path);
  const std::size_t token_count = saved.head.size() + saved.body.size();
  if (token_count + 2 > options_.context) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("{} holds {} tokens; the context is {}: make it larger with /ctx",
                            path.string(), token_count, options_.context));
  }
  const auto in_vocabulary = [&](TokenId token) {
    return token.value() >= 0 &&
           static_cast<std::uint32_t>(token.value()) < engine_.config().vocab_size;
  };
  if (!std::all_of(saved.head.begin(), saved.head.end(), in_vocabulary) ||
      !std::all_of(saved.body.begin(), saved.body.end(), in_vocabulary)) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{} belongs to another model ({})", path.string(), saved.model));
  }
  if (saved.state.empty())
    session_->clear();
  else
    session_->import_state(saved.state);
  options_.system = std::move(saved.system);
  options_.think = saved.think;
  turn_count_ = saved.turn_count;
  head_ = std::move(saved.head);
  body_ = std::move(saved.body);
}

}  // namespace ds4::app
