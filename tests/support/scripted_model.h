#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace ds4::test {

// What the scripted machine says: the answer of the last rule whose trigger stands in the prompt.
struct ScriptRule {
  std::string trigger;
  std::string answer;  // markers as text: "</think>", "<｜end▁of▁sentence｜>" is added at the end
};

struct ScriptedOptions {
  std::vector<ScriptRule> rules = {};
  std::string otherwise = "Hello.";  // when no trigger stands in the prompt
  std::uint32_t rows_max = 256;
  std::chrono::microseconds per_row{0};  // what a row takes
  std::chrono::microseconds per_run{0};  // what a batch takes besides
  // The device is lost at this run, counted from 1, and stays so; 0: it never is.
  std::uint64_t lost_at_run = 0;
  std::atomic<bool>* lost = nullptr;  // set when that happens; may be null
  // Keeps the logits of up to 32 rows and hands over candidates, as a card does.
  bool keeps_logits = false;
};

inline constexpr const char* kLostDeviceMessage = "the scripted device is lost";

// Counts of what ran, for tests; synchronised.
class ScriptLog {
 public:
  void add(std::uint32_t rows, std::uint32_t sequences);
  std::uint64_t rows() const;
  std::uint64_t runs() const;
  std::uint32_t sequences_max() const;

 private:
  mutable std::mutex mutex_;
  std::uint64_t rows_ = 0;
  std::uint64_t runs_ = 0;
  std::uint32_t sequences_max_ = 0;
};

// An engine whose machine plays given answers, whatever it is asked between the lines: after the
// last assistant marker of a sequence comes the answer of the rule that the text before it
// triggers.  The next token follows from the history alone, so it holds across cuts and restarts.
// Its vocabulary has a token for every byte and every marker, and no others, so that streams are
// cut everywhere a real model may cut them.
std::unique_ptr<Engine> scripted_engine(const ScriptedOptions& options,
                                        std::shared_ptr<ScriptLog> log = nullptr);

// The tokenizer of such an engine.
std::shared_ptr<const tokenizer::Tokenizer> byte_tokenizer();

}  // namespace ds4::test
