#pragma once
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/executor.h"
#include "cpu/cpu_executor.h"
#include "cuda/cuda_executor.h"
#include "gguf/reader.h"
#include "model/weights.h"
#include "tokenizer/markers.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace ds4::test {

// The trained small model of the repository on both backends.  Run from the root of the tree.
class TinyPair {
 public:
  TinyPair()
      : file("models/ds4-tiny.gguf"),
        config(read_config(file, {})),
        weights(bind_weights(file, nullptr, config, {})),
        tokenizer(
            std::make_shared<const tokenizer::Tokenizer>(tokenizer::read_gguf_vocabulary(file))),
        cpu(cpu::make_cpu_executor(config, weights, {.rows_max = 512})),
        cuda(make_cuda()) {}

  std::unique_ptr<Executor> make_cuda() const {
    return cuda::make_cuda_executor(config, weights, {.rows_max = 512, .context = 1024});
  }

  // A question as the first turn of a chat, the reasoning opened.
  std::vector<TokenId> ask(std::string_view question) const {
    std::string text(tokenizer::kBosMarker);
    text += tokenizer::kUserMarker;
    text += question;
    text += tokenizer::kAssistantMarker;
    text += tokenizer::kThinkMarker;
    return tokenizer->encode_with_special(text);
  }

  gguf::Reader file;
  ModelConfig config;
  Weights weights;
  std::shared_ptr<const tokenizer::Tokenizer> tokenizer;
  std::unique_ptr<Executor> cpu;
  std::unique_ptr<Executor> cuda;
};

// What the model was trained for, what it was not, and text in between.
inline constexpr std::array<std::string_view, 20> kQuestions = {
    "What is 47 + 85?",
    "What is 123 + 456?",
    "What is 9 + 9?",
    "Compute 730 + 280.",
    "What is 999 + 1?",
    "alpha = 314. beta = 271. What is beta?",
    "The colour of the door is green. What colour is the door?",
    "Remember: cedar = 42, willow = 17, maple = 93. What is willow?",
    "List three fruits.",
    "Say hello.",
    "Why is the sky blue?",
    "Write a function that adds two numbers.",
    "Translate to French: good morning.",
    "What is the capital of France?",
    "Count from one to ten.",
    "Repeat after me: the quick brown fox.",
    "Call the weather tool for Berlin.",
    "x = 5; y = x * 2; print(y)",
    "Tell me a story about a river and a stone that wanted to travel to the sea.",
    "0 1 1 2 3 5 8 13 21 34 55 89"};

}  // namespace ds4::test
