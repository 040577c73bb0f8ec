// What a token mask costs: making it ready, and a step.  Uses the published vocabulary (129,280
// tokens) when it lies beside the source tree (run from the root of the tree), else a small
// built-in one.  Compare a step with a decode step of the model: masks of several users are
// computed one after another between two steps.
#include <filesystem>
#include <string>

#include <benchmark/benchmark.h>

#include "chat/call_grammar.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace ds4::grammar {
namespace {

using tokenizer::Tokenizer;

const Tokenizer& bench_tokenizer() {
  static const Tokenizer kTokenizer = [] {
    const std::filesystem::path published = "../shared/data/tokenizer/tokenizer.json.gz";
    return std::filesystem::exists(published) ? Tokenizer(tokenizer::load_tokenizer_json(published))
                                              : Tokenizer(tokenizer::make_test_vocabulary());
  }();
  return kTokenizer;
}

std::shared_ptr<const TokenTrie> fresh_trie() {
  return std::make_shared<const TokenTrie>(bench_tokenizer());
}

constexpr const char* kSchema = R"({"type":"object","properties":{
  "title":{"type":"string","maxLength":120},"summary":{"type":"string"},
  "kind":{"enum":["bug","feature","question"]},"score":{"type":"number","minimum":0,"maximum":1},
  "authors":{"type":"array","items":{"type":"object","properties":{"name":{"type":"string"},
    "email":{"type":"string","format":"email"},"age":{"type":["integer","null"]}},
    "required":["name","email","age"],"additionalProperties":false}},
  "extra":{"type":"object"}},
  "required":["title","summary","kind","score","authors","extra"],"additionalProperties":false})";

constexpr const char* kAnswer =
    R"({"title": "Zeitgeist: naïve façade", "summary": "The quick brown fox jumps over the lazy )"
    R"(dog, and then \"nobody\" expected that it would do so again; however, it did.", "kind": )"
    R"("feature", "score": 0.25, "authors": [{"name": "Ada Lovelace", "email": )"
    R"("ada@example.org", "age": 36}, {"name": "Alan", "email": "alan@example.org", "age": null}], )"
    R"("extra": {"a": [1, 2.5, true, {"b": "text"}], "c": null}})";

void build_trie(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(fresh_trie());
  state.counters["tokens"] = static_cast<double>(bench_tokenizer().size());
}

void compile_schema(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(json_schema_grammar(kSchema, "schema"));
}

// Tools as agents send them, with the mask's slow parts made ahead.
void compile_thirty_tools(benchmark::State& state) {
  chat::AnswerShape shape;
  for (int i = 0; i < 30; ++i) {
    std::string properties;
    for (int j = 0; j < 8; ++j)
      properties += std::string(j == 0 ? "" : ",") + "\"parameter_" + std::to_string(j) +
                    R"(":{"type":")" + (j % 3 == 0 ? "integer" : "string") + "\"}";
    shape.tools.push_back({.schema = {.json = "{\"name\":\"tool_" + std::to_string(i) +
                                              R"(","parameters":{"type":"object","properties":{)" +
                                              properties + "}}}"},
                           .is_strict = false,
                           .where = "tools"});
  }
  const auto trie = fresh_trie();
  for (auto _ : state) {
    const chat::AnswerGrammars grammars = chat::answer_grammars(shape);
    trie->prepare(*grammars.calls);
  }
}

// The masks of one whole answer; `walks` says whether another one was made before.
void masks_of_an_answer(benchmark::State& state, bool walks_are_known) {
  const auto grammar = json_schema_grammar(kSchema, "schema");
  const std::vector<TokenId> tokens = bench_tokenizer().encode_text(kAnswer);
  auto trie = fresh_trie();
  double longest = 0;
  std::size_t masks = 0;
  for (auto _ : state) {
    if (!walks_are_known) {
      state.PauseTiming();
      trie = fresh_trie();
      trie->prepare(*grammar);
      state.ResumeTiming();
    }
    Matcher matcher(grammar, trie);
    for (const TokenId token : tokens) {
      const auto began = std::chrono::steady_clock::now();
      benchmark::DoNotOptimize(matcher.allowed().contains(token));
      const std::chrono::duration<double, std::micro> took =
          std::chrono::steady_clock::now() - began;
      if (walks_are_known && masks < tokens.size()) {
        ++masks;  // the first answer makes them known
      } else {
        longest = std::max(longest, took.count());
      }
      if (!matcher.accept(token)) state.SkipWithError("the answer does not fit the schema");
    }
  }
  state.counters["masks"] = benchmark::Counter(
      static_cast<double>(state.iterations() * tokens.size()), benchmark::Counter::kIsRate);
  state.counters["longest_us"] = longest;
}

BENCHMARK(build_trie)->Unit(benchmark::kMillisecond);
BENCHMARK(compile_schema)->Unit(benchmark::kMicrosecond);
BENCHMARK(compile_thirty_tools)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(masks_of_an_answer, first, false)->Unit(benchmark::kMicrosecond)->Iterations(5);
BENCHMARK_CAPTURE(masks_of_an_answer, later, true)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ds4::grammar

BENCHMARK_MAIN();
