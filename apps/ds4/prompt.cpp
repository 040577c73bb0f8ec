#include "prompt.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "chat/message.h"
#include "tokenizer/markers.h"
#include "tokenizer/segment.h"

namespace ds4::app {

namespace {

constexpr std::size_t kPromptBytesMax = std::size_t{256} << 20;

void append(std::vector<TokenId>& to, const std::vector<TokenId>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

tokenizer::RenderedPrompt user_turn(const chat::RenderOptions& options, std::string_view text) {
  const chat::Message user = chat::user_message(std::string(text));
  return chat::render_continuation({&user, 1}, options, chat::TranscriptEnd::kTurnClosed);
}

}  // namespace

chat::EffortLadder effort_ladder(std::string_view model_name) {
  return model_name.find("0731") == std::string_view::npos ? chat::EffortLadder::kApril2026
                                                           : chat::EffortLadder::k0731;
}

std::vector<TokenId> head_tokens(const tokenizer::Tokenizer& tokenizer,
                                 const chat::RenderOptions& options,
                                 std::string_view system) {
  tokenizer::RenderedPrompt head;
  head.add_control(tokenizer::kBosMarker);
  head.add_text(chat::effort_prefix(options.think, options.ladder));
  head.add_text(system);
  return tokenizer.encode_rendered(head);
}

std::vector<TokenId> prefix_tokens(const tokenizer::Tokenizer& tokenizer,
                                   const std::vector<PrefixTurn>& turns) {
  std::vector<TokenId> tokens;
  for (const PrefixTurn& turn : turns) {
    tokenizer::RenderedPrompt prompt = user_turn({.think = chat::ThinkMode::kNone}, turn.user);
    prompt.add_text(turn.assistant);
    prompt.add_control(tokenizer::kEosMarker);
    append(tokens, tokenizer.encode_rendered(prompt));
  }
  return tokens;
}

std::vector<TokenId> user_turn_tokens(const tokenizer::Tokenizer& tokenizer,
                                      const chat::RenderOptions& options,
                                      std::string_view text) {
  return tokenizer.encode_rendered(user_turn(options, text));
}

bool is_rendered_chat(std::string_view text) {
  return text.substr(0, tokenizer::kBosMarker.size()) == tokenizer::kBosMarker;
}

std::string read_prompt(const Options& options) {
  if (options.prompt) return *options.prompt;
  const bool is_stdin = options.prompt_file == "-";
  return read_text_file(is_stdin ? "/dev/stdin" : options.prompt_file, kPromptBytesMax);
}

std::vector<PrefixTurn> read_prefix(const Options& options) {
  if (options.prefix_file.empty()) return {};
  return parse_prefix_turns(read_text_file(options.prefix_file, kPromptBytesMax),
                            options.prefix_file.string());
}

Prompt make_prompt(const Options& options,
                   const tokenizer::Tokenizer& tokenizer,
                   const chat::RenderOptions& render) {
  const std::string text = read_prompt(options);
  Prompt prompt;
  if (options.raw_prompt || is_rendered_chat(text)) {
    prompt.tokens = tokenizer.encode_with_special(text);
  } else {
    prompt.tokens = head_tokens(tokenizer, render, options.system);
    append(prompt.tokens, prefix_tokens(tokenizer, read_prefix(options)));
    append(prompt.tokens, user_turn_tokens(tokenizer, render, text));
  }
  if (prompt.tokens.empty()) throw Error(ErrorCode::kInvalidArgument, "the prompt is empty");
  const auto think = tokenizer.find_marker(tokenizer::kThinkMarker);
  prompt.opens_reasoning = think && prompt.tokens.back() == *think;
  return prompt;
}

}  // namespace ds4::app
