#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/markers.h"
#include "tokenizer/vocabulary.h"

namespace ds4::tokenizer {

// A vocabulary small enough to reason about, for tests: BOS and EOS, the 256 bytes, the products of
// a few merges, one hole, and the markers of a chat.  Its ids differ from the published ones.
inline Vocabulary make_test_vocabulary() {
  Vocabulary v;
  const auto add = [&v](std::string text, TokenKind kind) {
    v.tokens.push_back(std::move(text));
    v.kinds.push_back(kind);
  };
  add(std::string(kBosMarker), TokenKind::kControl);
  add(std::string(kEosMarker), TokenKind::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    add(bytes_to_alphabet(std::string_view(&c, 1)), TokenKind::kText);
  }
  // Left, right, in order of rank; spelled in bytes.
  const std::vector<std::pair<std::string, std::string>> merges = {
      {"t", "h"}, {"th", "e"}, {" ", "the"},         {"a", "a"},       {"aa", "aa"}, {"\n", "\n"},
      {"1", "2"}, {"12", "3"}, {"\xE4\xBD", "\xA0"}, {"\xE4", "\xBD"}, {"l", "l"},   {"e", "ll"},
  };
  for (const auto& [left, right] : merges) {
    add(bytes_to_alphabet(left + right), TokenKind::kText);
    v.merges.push_back(bytes_to_alphabet(left) + " " + bytes_to_alphabet(right));
  }
  add("", TokenKind::kUnused);
  for (const std::string_view marker :
       {kUserMarker, kAssistantMarker, kThinkMarker, kThinkEndMarker, kDsmlMarker,
        kLatestReminderMarker, kActionMarker, kQueryMarker, kAuthorityMarker, kDomainMarker,
        kTitleMarker, kReadUrlMarker}) {
    add(std::string(marker), TokenKind::kAdded);
  }
  return v;
}

}  // namespace ds4::tokenizer
