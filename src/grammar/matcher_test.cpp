#include "grammar/matcher.h"

#include <gtest/gtest.h>

#include "grammar/json_schema.h"
#include "grammar/terminals.h"
#include "grammar/test_grammar.h"
#include "sample/random.h"

namespace ds4::grammar {
namespace {

const char* const kSchemas[] = {
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":5},"age":{"type":"integer",
        "minimum":-5,"maximum":250},"tags":{"type":"array","items":{"type":"string"},"maxItems":3}},
        "required":["name","tags"]})",
    R"({"anyOf":[{"type":"string","minLength":2,"maxLength":4},{"type":"number"},
        {"type":"array","items":{"enum":["a","ab","abc",true]}}]})",
    R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"a":{"type":"boolean"},
        "n":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["n"],
        "additionalProperties":{"type":"string","pattern":"^[ab]*c?$"}}}})",
    "{}",
};

// What the mask says of every token is what taking it says, along a random walk.
void check_masks(const std::shared_ptr<const Grammar>& grammar,
                 const std::shared_ptr<const TokenTrie>& trie,
                 std::uint64_t seed,
                 int steps) {
  sample::Random random(seed * 7919);
  Matcher matcher(grammar, trie);
  std::string text;
  for (int step = 0; step < steps; ++step) {
    const sample::TokenSet& allowed = matcher.allowed();
    std::vector<TokenId> choices;
    for (std::int32_t id = 0; id < static_cast<std::int32_t>(trie->vocab_size()); ++id) {
      Matcher next = matcher;
      const bool can = next.accept(TokenId{id});
      ASSERT_EQ(allowed.contains(TokenId{id}), can) << text << " + " << id;
      if (can) choices.push_back(TokenId{id});
    }
    ASSERT_FALSE(choices.empty()) << text;
    const TokenId token = choices[random.next() % choices.size()];
    if (token == trie->end_of_turn()) break;
    ASSERT_TRUE(matcher.accept(token));
    text += trie->bytes_of(token);
  }
}

TEST(Matcher, TheMaskIsWhatCanBeTaken) {
  for (const char* schema : kSchemas) {
    SCOPED_TRACE(schema);
    const auto grammar = json_schema_grammar(schema, "schema");
    for (std::uint64_t seed = 1; seed <= 12; ++seed)
      check_masks(grammar, test::small_trie(), seed, 40);
  }
}

// With so many tokens that a walk keeps them as bits.
TEST(Matcher, TheMaskOfALargeVocabulary) {
  std::vector<std::string> tokens;
  for (int byte = 0x20; byte < 0x7F; ++byte)
    tokens.emplace_back(1, static_cast<char>(byte));
  for (char first = 'a'; first <= 'z'; ++first)
    for (char second = 'a'; second <= 'z'; ++second)
      for (const char* end : {"", "s", "s\"", "ingly"})
        tokens.push_back(std::string{first, second} + end);
  tokens.emplace_back();
  const auto trie = std::make_shared<const TokenTrie>(
      tokens, TokenId{static_cast<std::int32_t>(tokens.size() - 1)});
  for (const char* schema :
       {R"({"type":"string","minLength":3,"maxLength":4})", R"({"type":"string","maxLength":9})",
        R"({"anyOf":[{"type":"string","maxLength":4},{"type":"string","pattern":"^[a-m]*$"}]})",
        R"({"type":"string"})"}) {
    SCOPED_TRACE(schema);
    const auto grammar = json_schema_grammar(schema, "schema");
    for (std::uint64_t seed = 1; seed <= 3; ++seed)
      check_masks(grammar, trie, seed, 6);
  }
}

TEST(Matcher, ARefusedTokenChangesNothing) {
  const auto trie = test::small_trie();
  Matcher matcher(json_schema_grammar(R"({"enum":["ab"]})", "schema"), trie);
  EXPECT_FALSE(matcher.accept_bytes("\"x"));
  EXPECT_TRUE(matcher.accept_bytes("\"ab\""));
  EXPECT_TRUE(matcher.must_end());
  EXPECT_TRUE(matcher.allowed().contains(trie->end_of_turn()));
  EXPECT_EQ(matcher.allowed().count(), 1U);
}

TEST(Matcher, MembersComeInAnyOrderOnce) {
  Grammar grammar;
  const NodeId a = grammar.add_text("a");
  const NodeId b = grammar.add_text("b");
  const NodeId c = grammar.add_text("c");
  const NodeId other = grammar.add_text("x");
  const NodeId members = grammar.add_members({a, b, c}, 2, other, grammar.add_text(","));
  ASSERT_TRUE(grammar.finish(grammar.add_sequence({members, grammar.add_text(";")})));
  const auto shared = std::make_shared<const Grammar>(std::move(grammar));
  for (const char* good : {"a,b;", "b,a;", "c,b,a;", "x,a,x,b;", "b,x,a,c;"})
    EXPECT_TRUE(test::takes(shared, good)) << good;
  for (const char* bad : {";", "a;", "a,a,b;", "a,b,;", "a,,b;", "a,b,c,c;", ",a,b;"})
    EXPECT_FALSE(test::takes(shared, bad)) << bad;
}

TEST(Matcher, DeepNestingEndsInsteadOfFailing) {
  const auto trie = test::small_trie();
  Matcher matcher(json_schema_grammar("{}", "schema"), trie);
  int depth = 0;
  while (matcher.accept_bytes("["))
    ++depth;
  EXPECT_GT(depth, 30);
  EXPECT_LT(depth, 300);
  EXPECT_GT(matcher.allowed().count(), 0U);
  EXPECT_TRUE(matcher.accept_bytes("1"));
  for (; depth > 0; --depth)
    EXPECT_TRUE(matcher.accept_bytes("]"));
  EXPECT_TRUE(matcher.must_end());
}

// Tokens of marker bytes stand for markers alone.
TEST(Matcher, RawTextHoldsNoMarker) {
  std::vector<std::string> tokens = {"a",
                                     "<",
                                     "/",
                                     "</",
                                     ">",
                                     "\xFF"
                                     "M",
                                     "M",
                                     "\xFF",
                                     ""};
  const auto trie = std::make_shared<TokenTrie>(tokens, TokenId{8});
  Grammar grammar;
  ASSERT_TRUE(
      grammar.finish(grammar.add_terminal(raw_text("</\xFF"
                                                   "M>",
                                                   false))));
  Matcher matcher(std::make_shared<const Grammar>(std::move(grammar)), trie);
  EXPECT_FALSE(matcher.allowed().contains(TokenId{5}));
  ASSERT_TRUE(matcher.accept(TokenId{0}));
  ASSERT_TRUE(matcher.accept(TokenId{3}));
  EXPECT_TRUE(matcher.allowed().contains(TokenId{5}));
  EXPECT_TRUE(matcher.allowed().contains(TokenId{0}));
  ASSERT_TRUE(matcher.accept(TokenId{5}));
  EXPECT_EQ(matcher.allowed().count(), 1U);
  ASSERT_TRUE(matcher.accept(TokenId{4}));
  EXPECT_TRUE(matcher.must_end());
}

}  // namespace
}  // namespace ds4::grammar
