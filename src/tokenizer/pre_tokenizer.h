#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tokenizer/unicode_classes.h"

namespace ds4::tokenizer {

// Cuts a text into the pieces that merging never crosses: the three nested splits of DeepSeek's
// tokenizer, in one pass without a regular expression engine.  The pieces, joined, are the text.
// Each byte of ill-formed UTF-8 counts as one character of no class.  Linear in the text; confined
// to one thread.
class PieceScanner {
 public:
  explicit PieceScanner(std::string_view text);

  // The next piece; empty at the end of the text.
  std::string_view next();

 private:
  // How far the first two splits let a piece reach.
  enum class Region { kPlain, kCjk };
  struct Char {
    CharClass char_class;  // kEnd at the end of the text or where the region ends
    std::uint32_t code_point;
    std::uint32_t bytes;
  };

  Char peek(std::size_t offset) const;
  std::size_t number_end(std::size_t offset) const;
  // The end of the third split's match at `offset`, or `offset` when nothing but rule e takes it.
  std::size_t match_end(std::size_t offset) const;
  std::size_t space_end(std::size_t offset) const;
  std::size_t letters_end(std::size_t offset) const;
  std::size_t symbols_end(std::size_t offset) const;

  std::string_view text_;
  std::size_t offset_ = 0;
  Region region_ = Region::kPlain;
  const UnicodeClasses& classes_;
};

}  // namespace ds4::tokenizer
