#include "grammar/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/test_grammar.h"

namespace ds4::grammar {
namespace {

struct Case {
  const char* schema;
  std::vector<const char*> good;
  std::vector<const char*> bad;
};

void check(const Case& it) {
  SCOPED_TRACE(it.schema);
  const auto grammar = json_schema_grammar(it.schema, "schema");
  for (const char* text : it.good)
    EXPECT_TRUE(test::takes(grammar, text)) << text;
  for (const char* text : it.bad)
    EXPECT_FALSE(test::takes(grammar, text)) << text;
}

TEST(JsonSchema, Objects) {
  check({R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},
             "required":["a"],"additionalProperties":false})",
         {R"({"a":1})", R"({"a": 1, "b": "x"})", "{\n  \"a\": 1,\n  \"b\": \"x\"\n}"},
         {"{}", R"({"b":"x"})", R"({"b":"x","a":1})", R"({"a":1,"c":2})", R"({"a":1,})",
          R"({"a":1.5})", R"({"a":1)", R"({"a":1}})", R"({"a"  :1})"}});
  check({R"({"type":"object","properties":{"a":{"type":"null"},"b":{"type":"boolean"}}})",
         {"{}", R"({"a":null})", R"({"b":true})", R"({"a":null, "b":false})"},
         {R"({"c":1})", R"({,"b":true})"}});
  check({R"({"type":"object","properties":{"a":{"type":"null"}},"additionalProperties":
             {"type":"integer"}})",
         {"{}", R"({"x":1})", R"({"a":null,"x":1,"y":2})"},
         {R"({"a":1})", R"({"x":"1"})", R"({"x":1,"a":null})"}});
  check({R"({"type":"object","required":["z"]})", {R"({"z":[1]})", R"({"z":1,"y":{}})"}, {"{}"}});
  check({R"({"type":"object"})", {"{}", R"({"a":{"b":[1,"x",null]}})"}, {"[]", "1"}});
}

TEST(JsonSchema, Arrays) {
  check({R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
         {"[1]", "[1, 2]", "[1,2,3]", "[\n 1,\n 2\n]"},
         {"[]", "[1,2,3,4]", "[1,]", "[\"1\"]"}});
  check({R"({"type":"array","items":{"type":"integer"}})", {"[]", "[1,2,3,4,5]"}, {"[1,,2]"}});
  check({R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}});
  check({R"({"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":false})",
         {R"(["a", 1])"},
         {R"(["a"])", "[]", R"(["a",1,2])"}});
  check({R"({"type":"array","prefixItems":[{"type":"string"}],"items":{"type":"integer"},
             "minItems":2,"maxItems":3})",
         {R"(["a",1])", R"(["a",1,2])"},
         {R"(["a"])", R"(["a",1,2,3])"}});
}

TEST(JsonSchema, Strings) {
  check({R"({"type":"string","minLength":2,"maxLength":3})",
         {R"("ab")", R"("abc")", "\"\xC3\xA9\xF0\x9F\x98\x80\"", R"("a\n")", R"("\uD83D\uDE00a")"},
         {R"("a")", R"("abcd")", R"("")", R"("\uD83D\uDE00")"}});
  check({R"({"type":"string","pattern":"^[a-c]+$"})", {R"("abc")"}, {R"("")", R"("abd")"}});
  check({R"({"type":"string","pattern":"^[a-c]+$","maxLength":2})", {R"("ab")"}, {R"("abc")"}});
  check({R"({"type":"string","format":"date"})", {R"("2026-11-26")"}, {R"("2026-13-26")"}});
  check({R"({"type":"string","format":"uuid"})",
         {R"("123e4567-e89b-12d3-a456-426614174000")"},
         {R"("123e4567")"}});
}

TEST(JsonSchema, ConstantsAndTypes) {
  check(
      {R"({"enum":["red","green",3,null]})", {R"("red")", "3", "null"}, {R"("blue")", "4", "red"}});
  check({R"({"type":"string","enum":["red",3]})", {R"("red")"}, {"3"}});
  check({R"({"const":{"a":[1]}})", {R"({"a":[1]})"}, {R"({"a":[2]})"}});
  check({R"({"type":["integer","null"]})", {"5", "null"}, {"5.5", R"("5")"}});
  check({R"({"type":"string","nullable":true})", {R"("x")", "null"}, {"1"}});
  check({R"({"type":"integer","minimum":0,"exclusiveMaximum":10})", {"0", "9"}, {"-1", "10"}});
  check({R"({"type":"number","minimum":0,"maximum":1})", {"0", "0.25", "1", "1.0"}, {"1.5", "-1"}});
  check({"{}", {"1", R"("x")", "[]", "{}", "true"}, {"", "nul"}});
}

TEST(JsonSchema, AlternativesAndReferences) {
  check({R"({"anyOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
                      {"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}]})",
         {R"({"a":1})", R"({"a":"x"})"},
         {R"({"a":null})"}});
  check({R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},
                       "required":["kind","x"]},
                      {"type":"object","properties":{"kind":{"const":"b"}},"required":["kind"]}]})",
         {R"({"kind":"a","x":1})", R"({"kind":"b"})"},
         {R"({"kind":"a"})", R"({"kind":"b","x":1})"}});
  check({R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":
             {"value":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},
             "required":["value","next"],"additionalProperties":false}}})",
         {R"({"value":1,"next":null})", R"({"value":1,"next":{"value":2,"next":null}})"},
         {R"({"value":1})", R"({"value":1,"next":{"value":2}})"}});
  check({R"({"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#"}}},
             "required":["children"]})",
         {R"({"children":[]})", R"({"children":[{"children":[]},{"children":[]}]})"},
         {R"({"children":[1]})"}});
  check({R"({"allOf":[{"type":"integer"}],"title":"one"})", {"1"}, {"1.5"}});
}

TEST(JsonSchema, RefusesWithThePathWhatItDoesNotUnderstand) {
  for (
      const auto& [schema, problem] : std::initializer_list<std::pair<const char*, const char*>>{
          {R"({"type":"object","properties":{"a":{"not":{}}}})",
           "schema.properties.a: the schema keyword \"not\""},
          {R"({"type":"array","items":{"type":"string","pattern":"(?=a)b"}})",
           "schema.items.pattern: in the pattern, look-around"},
          {R"({"type":"number","multipleOf":2})", "\"multipleOf\""},
          {R"({"type":"array","uniqueItems":true})", "\"uniqueItems\""},
          {R"({"type":"object","patternProperties":{}})", "\"patternProperties\""},
          {R"({"type":"string","format":"regex"})", "schema.format: the format \"regex\""},
          {R"({"type":"money"})", "schema.type: \"money\" is no type"},
          {R"({"$ref":"other.json"})", "schema.$ref: only references inside"},
          {R"({"$ref":"#/$defs/x"})", "there is no \"#/$defs/x\""},
          {R"({"allOf":[{},{}]})", "more than one schema"},
          {R"({"anyOf":[{}],"type":"object"})", "\"type\" beside \"anyOf\""},
          {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "may both match"},
          {R"({"minLength":3,"maxLength":2})", "minLength is larger"},
          {R"({"type":"number","minimum":0.5})", "schema.minimum: only whole numbers"},
          {R"({"type":"integer","minimum":5,"maximum":4})", "no whole number"},
          {R"({"enum":[]})", "schema.enum"},
          {R"({"type":"object","properties":{"a":{}},"required":["b"],"additionalProperties":false})",
           "\"b\" is not among the properties"},
          {R"({"$ref":"#"})", "no value fits"},
          {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
           "no value fits"}}) {
    try {
      json_schema_grammar(schema, "schema");
      ADD_FAILURE() << schema;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(problem)) << schema;
    }
  }
}

TEST(JsonSchema, AnyObject) {
  const auto grammar = json_object_grammar();
  EXPECT_TRUE(test::takes(grammar, R"({"a": [1, {"b": null}], "c": "\u00e9"})"));
  EXPECT_FALSE(test::takes(grammar, "[]"));
  EXPECT_FALSE(test::takes(grammar, R"({"a":})"));
  // White space cannot go on for ever.
  EXPECT_FALSE(test::takes(grammar, "{\n\n\"a\":1}"));
}

}  // namespace
}  // namespace ds4::grammar
