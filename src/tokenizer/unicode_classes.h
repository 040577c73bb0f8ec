#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace ds4::tokenizer {

// What the pre-tokenizer asks about a code point.  Every code point has exactly one of these.
enum class CharClass : std::uint8_t {
  kOther,   // controls, formats, unassigned: none of the below
  kLetter,  // general category L
  kMark,    // M
  kNumber,  // N
  kSymbol,  // P or S
  kSpace,   // White_Space, but not a line break
  kBreak,   // carriage return, line feed
  kEnd,     // not a character: the end of the piece being scanned
};

// General categories of all code points, taken from PCRE2's tables.  Immutable after construction.
class UnicodeClasses {
 public:
  // Cost: some milliseconds; one instance serves the whole process, see unicode_classes().
  UnicodeClasses();

  CharClass of(std::uint32_t code_point) const {
    if (code_point >= kCodePointsEnd) return CharClass::kOther;
    return static_cast<CharClass>(blocks_[block_of_[code_point >> 8] * 256u + (code_point & 255u)]);
  }

 private:
  static constexpr std::uint32_t kCodePointsEnd = 0x110000;
  std::array<std::uint16_t, kCodePointsEnd / 256> block_of_{};
  std::vector<std::uint8_t> blocks_;  // [block, 256]; equal blocks are stored once
};

const UnicodeClasses& unicode_classes();

// The second stage's set: U+4E00-9FA5 and the kana blocks U+3040-30FF.
constexpr bool is_cjk_or_kana(std::uint32_t code_point) {
  return (code_point >= 0x4E00 && code_point <= 0x9FA5) ||
         (code_point >= 0x3040 && code_point <= 0x30FF);
}

}  // namespace ds4::tokenizer
