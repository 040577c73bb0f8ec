#include "grammar/pattern.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/dfa.h"

namespace ds4::grammar {
namespace {

bool matches(std::string_view pattern,
             const std::string& text,
             Spelling spelling = Spelling::kRaw) {
  const DfaPtr dfa = dfa_of(parse_pattern(pattern, spelling));
  if (dfa->accepts_nothing()) return false;
  Dfa::State state = Dfa::kStart;
  for (const char c : text)
    state = dfa->next(state, static_cast<std::uint8_t>(c));
  return state != Dfa::kDead && dfa->accepts(state);
}

TEST(Pattern, SearchesUnlessAnchored) {
  EXPECT_TRUE(matches("b", "abc"));
  EXPECT_FALSE(matches("^b", "abc"));
  EXPECT_FALSE(matches("b$", "abc"));
  EXPECT_TRUE(matches("^abc$", "abc"));
  EXPECT_TRUE(matches("^a|c$", "xc"));
  EXPECT_TRUE(matches("^a|c$", "ax"));
  EXPECT_FALSE(matches("^a|c$", "xcx"));
}

TEST(Pattern, ClassesGroupsAndCounts) {
  EXPECT_TRUE(matches("^[A-Z]{2,3}-\\d+(?:\\.\\d)?$", "AB-12.5"));
  EXPECT_FALSE(matches("^[A-Z]{2,3}-\\d+(?:\\.\\d)?$", "A-12.5"));
  EXPECT_TRUE(matches("^(?<year>\\d{4})(-\\w*?)*$", "2026-a-_b"));
  EXPECT_TRUE(matches("^[^a-z\\s]+$", "A-\xC3\x89"));
  EXPECT_FALSE(matches("^[^a-z\\s]+$", "A B"));
  EXPECT_TRUE(matches("^.$", "\xF0\x9F\x98\x80"));
  EXPECT_FALSE(matches("^.$", "\n"));
  EXPECT_TRUE(matches("^\\u00e9\\x41[\\]\\-]{2}$",
                      "\xC3\xA9"
                      "A]-"));
  EXPECT_TRUE(matches("^a{,2}$", "a{,2}"));
}

TEST(Pattern, SpellsJsonStrings) {
  EXPECT_TRUE(matches("^a\"b\\\\\\n$", "a\\\"b\\\\\\n", Spelling::kJson));
  EXPECT_FALSE(matches("^a.b$", "a\"b", Spelling::kJson));
  EXPECT_TRUE(matches("^a.b$", "a\\\"b", Spelling::kJson));
}

TEST(Pattern, SaysWhatItDoesNotUnderstand) {
  for (const auto& [pattern, problem] :
       std::initializer_list<std::pair<const char*, const char*>>{{"(?=a)", "look-around"},
                                                                  {"(?<!a)b", "look-around"},
                                                                  {"\\bword", "\\b"},
                                                                  {"(a)\\1", "\\1"},
                                                                  {"\\p{L}", "\\p"},
                                                                  {"a^b", "beginning"},
                                                                  {"(a$|b)", "end"},
                                                                  {"a{5000}", "above 1000"},
                                                                  {"(a", "no end"},
                                                                  {"[a", "no end"},
                                                                  {"a)", "parenthesis"},
                                                                  {"*a", "quantifier"},
                                                                  {"[z-a]", "range"},
                                                                  {"a{3,2}", "order"}}) {
    try {
      parse_pattern(pattern, Spelling::kRaw);
      ADD_FAILURE() << pattern;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(problem)) << pattern;
    }
  }
}

}  // namespace
}  // namespace ds4::grammar
