#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/unicode_classes.h"

#include <map>
#include <memory>
#include <string>

#include <pcre2.h>

#include "base/error.h"
#include "base/utf8.h"

namespace ds4::tokenizer {
namespace {

// Everything outside these ranges is unassigned or private use: no class of ours.
struct Range {
  std::uint32_t first;
  std::uint32_t end;
};
constexpr Range kAssigned[] = {{0, 0xD800}, {0xE000, 0x40000}, {0xE0000, 0xE1000}};

constexpr bool is_white_space(std::uint32_t c) {
  return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDeleter {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

// Calls visit(code_point) for every code point of `subject` in a run that `pattern` matches.
template <class Visit>
void for_each_member(const char* pattern, const std::string& subject, Visit visit) {
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  const std::unique_ptr<pcre2_code, CodeDeleter> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error,
                    &error_offset, nullptr));
  DS4_CHECK(code != nullptr);
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  const std::unique_ptr<pcre2_match_data, MatchDeleter> match(
      pcre2_match_data_create_from_pattern(code.get(), nullptr));
  PCRE2_SIZE at = 0;
  while (pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), at,
                     PCRE2_NO_UTF_CHECK, match.get(), nullptr) > 0) {
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
    for (PCRE2_SIZE i = bounds[0]; i < bounds[1];) {
      const DecodedCodePoint c = decode_code_point(std::string_view(subject).substr(i));
      visit(c.value);
      i += c.bytes;
    }
    at = bounds[1];
  }
}

}  // namespace

UnicodeClasses::UnicodeClasses() {
  std::string subject;
  for (const Range range : kAssigned) {
    for (std::uint32_t c = range.first; c < range.end; ++c)
      append_utf8(subject, c);
  }
  std::vector<std::uint8_t> flat(kCodePointsEnd, static_cast<std::uint8_t>(CharClass::kOther));
  const auto assign = [&](const char* pattern, CharClass char_class) {
    for_each_member(pattern, subject,
                    [&](std::uint32_t c) { flat[c] = static_cast<std::uint8_t>(char_class); });
  };
  assign("\\p{L}+", CharClass::kLetter);
  assign("\\p{M}+", CharClass::kMark);
  assign("\\p{N}+", CharClass::kNumber);
  assign("[\\p{P}\\p{S}]+", CharClass::kSymbol);
  for (std::uint32_t c = 0; c <= 0x3000; ++c) {
    if (is_white_space(c)) flat[c] = static_cast<std::uint8_t>(CharClass::kSpace);
  }
  flat['\r'] = flat['\n'] = static_cast<std::uint8_t>(CharClass::kBreak);

  std::map<std::string, std::uint16_t> known;
  for (std::size_t block = 0; block < block_of_.size(); ++block) {
    const auto first = flat.begin() + static_cast<std::ptrdiff_t>(block * 256);
    const auto [place, is_new] = known.try_emplace(std::string(first, first + 256),
                                                   static_cast<std::uint16_t>(known.size()));
    if (is_new) blocks_.insert(blocks_.end(), first, first + 256);
    block_of_[block] = place->second;
  }
}

const UnicodeClasses& unicode_classes() {
  static const UnicodeClasses kClasses;
  return kClasses;
}

}  // namespace ds4::tokenizer
