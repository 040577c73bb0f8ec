#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "chat/effort.h"
#include "runtime/open.h"
#include "sample/sampler.h"

namespace ds4::app {

// What one run of the program does.
enum class Mode {
  kChat,          // the REPL
  kOneShot,       // -p, --prompt-file
  kPlan,          // --plan
  kInspect,       // --inspect
  kDumpTokens,    // --dump-tokens
  kDumpLogprobs,  // --dump-logprobs
  kDumpLogits,    // --dump-logits
  kPerplexity,    // --perplexity-file
};

// The command line as values.  Immutable after parse_options().
struct Options {
  Mode mode = Mode::kChat;
  OpenOptions open;  // `model` empty: default_model_path(); `log` empty

  std::optional<std::string> prompt;
  std::filesystem::path prompt_file;  // "-": standard input
  std::filesystem::path prefix_file;
  std::filesystem::path dump_file;  // of --dump-logprobs, --dump-logits
  std::filesystem::path perplexity_file;
  bool raw_prompt = false;
  bool answer_only = false;  // reasoning is not shown
  bool verbose = false;

  std::string system = "You are a helpful assistant.";
  chat::ThinkMode think = chat::ThinkMode::kHigh;
  sample::SamplingOptions sampling;
  std::optional<std::uint64_t> seed;
  std::uint32_t token_max = 50000;
  std::uint32_t draft_count = 1;
  std::uint32_t logprobs_top_k = 20;
  int power_percent = 100;
};

// What parsing ended in: options, or a text to print and the exit code to end with.
struct ParseResult {
  std::optional<Options> options;
  int exit_code = 0;
  std::string text;  // help for standard output when exit_code is 0, else for standard error
};

ParseResult parse_options(int argc, const char* const* argv);

}  // namespace ds4::app
