#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "engine/sched_request.h"

// What an answer consists of, in the order it comes: the words between Answer and the protocols'
// writers.  Plain data.
namespace ds4::server {

struct PromptProgress {
  std::uint32_t done_tokens = 0;
  std::uint32_t total_tokens = 0;
};
struct ReasoningDelta {
  std::string text;
};
// The reasoning was closed by the model, or for it.
struct ReasoningClosed {};
struct TextDelta {
  std::string text;
};

struct FinishedCall {
  std::string id;    // of the protocol's own form, unguessable
  std::string name;  // as the model knows it
  std::string arguments;
};
// A call of a tool on offer: its arguments follow in pieces that make one JSON object, and its end.
// What cannot be taken back is said of a call only when a mask guards it or all of its block is
// there and checked.
struct CallOpened {
  std::string id;
  std::string name;
};
struct CallArguments {
  std::string json;
};
struct CallClosed {};
// The answer was cut inside the call that is open: nobody may run it.
struct CallVoided {};

// One token of the answer's text with its log probabilities.
struct TokenAlternative {
  std::string bytes;
  double logprob = 0;
};
struct TokenInfo {
  TokenAlternative chosen;
  std::vector<TokenAlternative> top;
};

enum class Finish { kStop, kStopText, kLength, kToolCalls, kError, kCancelled };

// Stable lower-case name, e.g. "tool_calls": for metrics, the log and the trace.
const char* finish_word(Finish finish);

struct Usage {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t cached_tokens = 0;  // of the prompt, not evaluated
  std::uint32_t answer_tokens = 0;
  std::uint32_t reasoning_tokens = 0;  // of the answer
};

struct Outcome {
  Finish finish = Finish::kStop;
  std::string stop_text;  // kStopText: which
  ErrorCode error = ErrorCode::kInternal;
  std::string message;  // kError
  Usage usage;
  bool reasoning_closed = false;
  std::string exact_tool_block;      // kToolCalls: as the model wrote it; empty when unknown
  bool cut_in_calls = false;         // the transcript ends inside a block
  bool lacks_reasoning_end = false;  // what the transcript still needs to be a closed turn
  bool lacks_end = false;
  GenerationResult generation;
};

using AnswerEvent = std::variant<ReuseReport,
                                 PromptProgress,
                                 ReasoningDelta,
                                 ReasoningClosed,
                                 TextDelta,
                                 CallOpened,
                                 CallArguments,
                                 CallClosed,
                                 CallVoided,
                                 TokenInfo,
                                 Outcome>;

// All of an answer, put together: of calls those that were closed.
struct AnswerRecord {
  std::string reasoning;
  std::string text;
  std::vector<FinishedCall> calls;
  std::vector<TokenInfo> tokens;

  void add(const AnswerEvent& event);
};
// The events of a whole call.
std::vector<AnswerEvent> events_of(const FinishedCall& call);

}  // namespace ds4::server
