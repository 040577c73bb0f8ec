#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/strong.h"
#include "tokenizer/segment.h"
#include "tokenizer/tokenizer.h"

// The bytes that prompts and live transcripts are compared by: text as it is, and each marker as
// the byte 0xFF and its name.  0xFF stands in no UTF-8 text, so text that merely spells a marker
// never compares equal to one.  Pure functions.
namespace ds4 {

inline constexpr char kMarkerByte = '\xFF';

std::string prompt_key(const tokenizer::RenderedPrompt& prompt);
// What `token` adds to the key of its transcript.
void append_token_key(std::string& key, const tokenizer::Tokenizer& tokenizer, TokenId token);
// Tokens of what follows the first `offset` bytes of the prompt's key.  `offset` must not fall
// inside a marker.
std::vector<TokenId> encode_rest(const tokenizer::Tokenizer& tokenizer,
                                 const tokenizer::RenderedPrompt& prompt,
                                 std::size_t offset);

// Leading bytes that both have.
std::size_t common_prefix_bytes(std::string_view a, std::string_view b);

}  // namespace ds4
