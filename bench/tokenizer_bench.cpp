// Throughput of the tokenizer in bytes a second, on text made here.  Uses the published vocabulary
// when it lies beside the source tree (run from the root of the tree), else a small built-in one,
// which merges little and is therefore slower a byte.
#include <filesystem>
#include <random>
#include <string>

#include <benchmark/benchmark.h>

#include "tokenizer/test_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace ds4::tokenizer {
namespace {

const Tokenizer& bench_tokenizer() {
  static const Tokenizer kTokenizer = [] {
    const std::filesystem::path published = "../shared/data/tokenizer/tokenizer.json.gz";
    return std::filesystem::exists(published) ? Tokenizer(load_tokenizer_json(published))
                                              : Tokenizer(make_test_vocabulary());
  }();
  return kTokenizer;
}

constexpr std::size_t kTextBytes = std::size_t{4} << 20;

std::string made_of(const std::vector<std::string>& parts) {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < kTextBytes)
    text += parts[random() % parts.size()];
  return text;
}

std::string english() {
  return made_of({"the ",      "model ",       "reads ",      "a ",        "sentence, ",
                  "and ",      "answers; ",    "its ",        "memory ",   "grows ",
                  "slowly. ",  "However, ",    "nobody ",     "expected ", "photosynthesis ",
                  "in ",       "Kilimanjaro ", "between ",    "1987 ",     "and ",
                  "2024.\n\n", "It's ",        "well-known ", "that ",     "quixotic "});
}

std::string code() {
  return made_of({"for (int i = 0; i < count; ++i) {\n", "    ", "\n", "  return value_;\n",
                  "std::vector<float> rows(width);\n", "}\n\n", "if (!ok) throw Error(kIo);\n",
                  "const auto& x_final = table[index + 1];\n", "// keeps the last row\n",
                  "  def encode(self, text):\n", "    self.cache_ = {}\n", "0x7fff'ffff"});
}

std::string chinese() {
  return made_of(
      {"人工智能", "的", "模型，", "可以", "理解", "。\n", "我们", "认为", "它", "很", "有用"});
}

void encode(benchmark::State& state, const std::string& text) {
  const Tokenizer& tokenizer = bench_tokenizer();
  std::size_t token_count = 0;
  for (auto _ : state)
    token_count = tokenizer.encode_text(text).size();
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
  state.counters["bytes_per_token"] =
      static_cast<double>(text.size()) / static_cast<double>(token_count);
}

BENCHMARK_CAPTURE(encode, english, english())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, code, code())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, chinese, chinese())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, one_word, std::string(1 << 20, 'a'))->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, spaces, std::string(1 << 20, ' '))->Unit(benchmark::kMillisecond);

void load(benchmark::State& state) {
  const std::filesystem::path published = "../shared/data/tokenizer/tokenizer.json.gz";
  if (!std::filesystem::exists(published)) {
    state.SkipWithError("no published vocabulary");
    return;
  }
  for (auto _ : state)
    benchmark::DoNotOptimize(Tokenizer(load_tokenizer_json(published)));
}
BENCHMARK(load)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ds4::tokenizer

BENCHMARK_MAIN();
