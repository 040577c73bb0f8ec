#include "prompt.h"

#include <fstream>

#include <gtest/gtest.h>

#include "base/error.h"
#include "gguf/reader.h"
#include "tokenizer/markers.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace ds4::bench {
namespace {

constexpr const char* kModel = "models/ds4-tiny.gguf";

// All tokens that a source gives.
std::vector<TokenId> tokens_of(const PromptSource& source) {
  const Prompt prompt = read_prompt(kModel, source, 1);
  std::vector<TokenId> tokens;
  for (std::uint32_t p = 0; p < prompt.length(); ++p)
    tokens.push_back(prompt.at(p, 0));
  return tokens;
}

TEST(Prompt, AChatIsOneMessageAnsweredWithoutReasoning) {
  const std::string file = testing::TempDir() + "ds4_bench_prompt.txt";
  std::ofstream(file) << "Who are you?";
  const tokenizer::Tokenizer tokenizer(
      tokenizer::read_gguf_vocabulary(gguf::Reader(std::filesystem::path(kModel))));
  EXPECT_EQ(tokenizer.decode(tokens_of({.file = file})), "Who are you?");
  const std::string chat = "<｜User｜>Who are you?<｜Assistant｜></think>";
  const std::string bos(tokenizer::kBosMarker);
  EXPECT_EQ(tokenizer.decode(tokens_of({.file = file, .chat = true})), bos + chat);
  EXPECT_EQ(tokenizer.decode(tokens_of({.file = file, .chat = true, .system = "Be brief."})),
            bos + "Be brief." + chat);
  EXPECT_THROW(read_prompt(kModel, {.file = file}, 1000), Error);
}

}  // namespace
}  // namespace ds4::bench
