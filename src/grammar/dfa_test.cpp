#include "grammar/dfa.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/terminals.h"

namespace ds4::grammar {
namespace {

bool matches(const Dfa& dfa, const std::string& text) {
  if (dfa.accepts_nothing()) return false;
  Dfa::State state = Dfa::kStart;
  for (const char c : text)
    state = dfa.next(state, static_cast<std::uint8_t>(c));
  return state != Dfa::kDead && dfa.accepts(state);
}

TEST(Dfa, TellsTextsApart) {
  const std::vector<std::string> words = {"on", "one", "off"};
  const DfaPtr dfa = dfa_of_texts(words);
  for (const std::string& word : words)
    EXPECT_TRUE(matches(*dfa, word)) << word;
  for (const char* other : {"", "o", "ones", "of", "x"})
    EXPECT_FALSE(matches(*dfa, other)) << other;
}

TEST(Dfa, RepeatsWithinLimits) {
  const DfaPtr dfa = dfa_of(repeat(choice({text("ab"), text("c")}), 2, 3));
  for (const char* good : {"abab", "cc", "abcab", "ccc"})
    EXPECT_TRUE(matches(*dfa, good)) << good;
  for (const char* bad : {"ab", "cccc", "aab", ""})
    EXPECT_FALSE(matches(*dfa, bad)) << bad;
}

TEST(Dfa, AnEmptyChoiceAcceptsNothing) {
  EXPECT_TRUE(dfa_of(choice({}))->accepts_nothing());
  EXPECT_TRUE(dfa_of(sequence({text("a"), choice({})}))->accepts_nothing());
}

TEST(Dfa, IntersectionAndDifference) {
  const DfaPtr three = dfa_of(repeat(byte_range('a', 'c'), 3, 3));
  const DfaPtr no_b = dfa_of(repeat(choice({text("a"), text("c")}), 0, kUnbounded));
  EXPECT_TRUE(matches(*intersection(*three, *no_b), "aca"));
  EXPECT_FALSE(matches(*intersection(*three, *no_b), "aba"));
  EXPECT_FALSE(matches(*intersection(*three, *no_b), "ac"));
  EXPECT_TRUE(matches(*difference(*three, *no_b), "aba"));
  EXPECT_FALSE(matches(*difference(*three, *no_b), "aca"));
}

TEST(Dfa, RefusesTooManyStates) {
  EXPECT_THROW(dfa_of(repeat(byte_range('a', 'b'), 0, 100000)), Error);
}

TEST(Terminals, JsonStrings) {
  const DfaPtr dfa = json_string(false);
  for (const char* good : {R"("")", R"("a b")", R"("\n\"\\\/")", R"("\u00e9")", R"("\uD83D\uDE00")",
                           "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""})
    EXPECT_TRUE(matches(*dfa, good)) << good;
  for (const char* bad :
       {"\"", "a", "\"a\nb\"", R"("\x")", R"("\u12")", R"("\uD83D")", R"("\uD83Dx")", R"("\uDE00")",
        R"("\uD83D\u0041")", "\"\xC3\"", "\"\xED\xA0\x80\"", "\"\xC0\x80\"", "\"a\"b"})
    EXPECT_FALSE(matches(*dfa, bad)) << bad;
}

TEST(Terminals, KeysBesideOthers) {
  const DfaPtr dfa = json_key_other_than({"name", "n\xC3\xA9"});
  for (const char* good : {R"("")", R"("nam")", R"("names")", "\"n\xC3\xA8\"", R"("x")"})
    EXPECT_TRUE(matches(*dfa, good)) << good;
  for (const char* bad : {R"("name")", "\"n\xC3\xA9\"", R"("a\u0062")"})
    EXPECT_FALSE(matches(*dfa, bad)) << bad;
}

TEST(Terminals, RawTextEndsAtItsCloseAlone) {
  const std::string close = "</\xFFM>";
  const DfaPtr dfa = raw_text(close, false);
  for (const char* text : {"", "a", "a < b </ c", "<", "</", "<<//", "\n\t\"quotes\"", "\xC3\xA9"})
    EXPECT_TRUE(matches(*dfa, text + close)) << text;
  EXPECT_FALSE(matches(*dfa, "a"));
  EXPECT_FALSE(matches(*dfa, "a\xFFM>"));
  EXPECT_FALSE(matches(*dfa, "a" + close + "b"));
  EXPECT_FALSE(matches(*dfa, "\xC3" + close));
}

// Every number of a small range against plain comparison.
TEST(Terminals, BoundedNumbers) {
  const std::vector<std::string> spelled = {"0",   "-0",   "7",    "-7",    "10",    "12",   "99",
                                            "100", "101",  "-1",   "-10",   "-11",   "0.5",  "-0.5",
                                            "7.0", "7.25", "99.9", "100.0", "100.1", "-6.9", "007"};
  for (const std::int64_t low : {-11, -7, 0, 7, 10}) {
    for (const std::int64_t high : {-7, 0, 7, 12, 100}) {
      for (const int open : {0, 1, 2, 3}) {
        NumberBounds bounds{.least = low, .most = high};
        bounds.excludes_least = (open & 1) != 0;
        bounds.excludes_most = (open & 2) != 0;
        if (low + bounds.excludes_least > high - bounds.excludes_most) continue;
        const DfaPtr whole = dfa_of(json_integer(bounds));
        const DfaPtr any = dfa_of(json_number(bounds));
        for (const std::string& text : spelled) {
          const double value = std::strtod(text.c_str(), nullptr);
          const double from = static_cast<double>(low);
          const double to = static_cast<double>(high);
          const bool inside = (bounds.excludes_least ? value > from : value >= from) &&
                              (bounds.excludes_most ? value < to : value <= to);
          const bool is_json = text != "007" && text != "-0";
          const bool is_whole = text.find('.') == std::string::npos;
          EXPECT_EQ(matches(*whole, text), inside && is_json && is_whole)
              << text << " in " << low << ".." << high << " open " << open;
          EXPECT_EQ(matches(*any, text), inside && is_json)
              << text << " in " << low << ".." << high << " open " << open;
        }
      }
    }
  }
}

TEST(Terminals, Numbers) {
  const DfaPtr any = dfa_of(json_number({}));
  for (const char* good : {"0", "-0", "12.5", "1e5", "1.5E-07", "-12"})
    EXPECT_TRUE(matches(*any, good)) << good;
  for (const char* bad : {"", "01", "1.", ".5", "1e", "1e999", "+1", "--1"})
    EXPECT_FALSE(matches(*any, bad)) << bad;
  EXPECT_TRUE(matches(*dfa_of(json_integer({})), "-123456789012345678"));
  EXPECT_FALSE(matches(*dfa_of(json_integer({})), "1.0"));
}

}  // namespace
}  // namespace ds4::grammar
