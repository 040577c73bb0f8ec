#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "chat/render.h"
#include "options.h"
#include "prefix_turns.h"
#include "tokenizer/tokenizer.h"

namespace ds4::app {

// The effort ladder of a model, from its name.
chat::EffortLadder effort_ladder(std::string_view model_name);

// BOS, the effort prefix of the mode, the system text.
std::vector<TokenId> head_tokens(const tokenizer::Tokenizer& tokenizer,
                                 const chat::RenderOptions& options,
                                 std::string_view system);

// Complete turns that stand before the conversation.
std::vector<TokenId> prefix_tokens(const tokenizer::Tokenizer& tokenizer,
                                   const std::vector<PrefixTurn>& turns);

// The user's turn and the assistant's opener.  `text` is plain: markers in it are characters.
std::vector<TokenId> user_turn_tokens(const tokenizer::Tokenizer& tokenizer,
                                      const chat::RenderOptions& options,
                                      std::string_view text);

// True for a prompt that begins with the BOS marker: a chat that somebody has rendered already.
bool is_rendered_chat(std::string_view text);

// The text of -p or --prompt-file.  Throws Error(kNotFound | kIo | kInvalidArgument).
std::string read_prompt(const Options& options);

// The turns of --prefix-file; none without it.
std::vector<PrefixTurn> read_prefix(const Options& options);

// A prompt's tokens and how its answer begins.
struct Prompt {
  std::vector<TokenId> tokens;
  bool opens_reasoning = false;  // it ends with the marker that opens reasoning
};

// What one run of the program asks: raw, rendered already, or as the first turn of a chat.
// Throws what reading and tokenizing throw, and Error(kInvalidArgument) for an empty prompt.
Prompt make_prompt(const Options& options,
                   const tokenizer::Tokenizer& tokenizer,
                   const chat::RenderOptions& render);

}  // namespace ds4::app
