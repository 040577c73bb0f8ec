#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace ds4::app {

// A complete exchange that stands before the conversation.
struct PrefixTurn {
  std::string user;
  std::string assistant;
  friend bool operator==(const PrefixTurn&, const PrefixTurn&) = default;
};

// Reads lines that start with USER: and ASSISTANT:, in turn, beginning with the user and ending
// with the assistant; a text goes on until the next marker and loses the white space around it.
// Throws Error(kBadFormat) with the line; `name` stands for the text in messages.
std::vector<PrefixTurn> parse_prefix_turns(std::string_view text, std::string_view name);

}  // namespace ds4::app
