#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/matcher.h"

namespace ds4::grammar::test {

// A vocabulary of every byte and of some longer tokens that run over the ends of things; the last
// id ends the turn.
inline std::shared_ptr<const TokenTrie> small_trie() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte)
    tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* token :
       {"\":",      "\": \"", "\",",      "\"}",      "{\"",  "[{",    "}]",  "},",   ", ",
        ",\n",      "tr",     "true",     "rue",      "12",   "123",   "1,",  "\"a",  "a\"",
        "ab",       "abc",    "\xC3\xA9", "\xE2\x82", "\\\"", "\\u00", " \"", "\n  ", "null",
        "\"name\"", "\"n",    "}}",       "]}",       "\"]",  "-1",    "1.5", "e1"})
    tokens.emplace_back(token);
  tokens.emplace_back();
  const TokenId end{static_cast<std::int32_t>(tokens.size() - 1)};
  return std::make_shared<TokenTrie>(tokens, end);
}

// Whether the grammar takes the whole text.
inline bool takes(std::shared_ptr<const Grammar> grammar, std::string_view text) {
  static const auto trie = small_trie();
  Matcher matcher(std::move(grammar), trie);
  return (text.empty() || matcher.accept_bytes(text)) && matcher.can_end();
}

}  // namespace ds4::grammar::test
