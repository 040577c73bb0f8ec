#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "sample/sampler.h"
#include "sample/token_set.h"
#include "tensor/strong.h"
#include "tokenizer/segment.h"

// One answer as the Scheduler sees it: what is asked, who takes the tokens, how it ended.
namespace ds4 {

struct GenerationRequest {
  tokenizer::RenderedPrompt prompt;
  std::vector<TokenId> tokens;   // of the prompt, as encode_rendered() gives them
  std::uint32_t tokens_max = 0;  // of the answer; at least 1
  sample::SamplingOptions sampling;
  std::uint64_t seed = 0;
  // Log probabilities reported with every token: none when absent, else the token's own and that
  // many of the likeliest.
  std::optional<std::uint32_t> top_logprobs;
  int priority = 0;        // higher first; a level is worth kPriorityStep of waiting
  std::string name_space;  // states of different namespaces never meet
  std::stop_token stop;    // checked before every chunk and every step
};

// Where the state of a prompt's beginning came from.
enum class ReuseSource {
  kCold,     // nothing was there
  kTokens,   // the live tokens are a prefix of the prompt's
  kText,     // the live tokens spell a prefix of the prompt
  kVisible,  // the live tokens are what a prefix of the prompt is the visible part of
  kRewind,   // the live state was cut back to where the prompt leaves it
  kFork,     // copied from another slot up to a checkpoint
  kDisk,     // read from the store
};
const char* reuse_source_name(ReuseSource source);

// Why a store gave no more of a prompt than it did.
struct MissNote {
  std::string reason;                // one word; empty: it gave all that it could
  std::size_t agreed_tokens = 0;     // whose bytes agree with something saved, resumable or not
  std::size_t first_difference = 0;  // bytes of the prompt's key
  std::string saved;                 // what is saved round there: prompt text, for the trace alone
};
// May read files: not for the engine's thread.  Takes the prompt's key.
using ExplainMiss = std::function<MissNote(std::string_view key)>;

// What was reused for a prompt, and why not more.  Offsets are bytes of the prompt's key
// (prompt_key.h).
struct ReuseReport {
  ReuseSource source = ReuseSource::kCold;
  std::uint32_t slot = 0;
  std::uint32_t prompt_tokens = 0;  // of the effective prompt: live tokens and the tokenised rest
  std::uint32_t reused_tokens = 0;  // not evaluated again
  std::uint32_t lost_tokens = 0;    // of another conversation, dropped for this one
  std::string reason;               // why memory had no more; empty for a continuation
  ExplainMiss explain_store = {};   // why the store had no more; empty when it was not asked
  // For anything but a continuation: the best candidate's first differing byte and up to 40 bytes
  // round it.  Prompt text: for the private trace alone.
  std::size_t first_difference = 0;
  std::string expected;  // what the live state had there
  std::string found;     // what the prompt has there
};

struct GeneratedToken {
  TokenId token;
  bool is_end = false;                        // the model ended its turn
  double logprob = 0;                         // when asked for
  std::span<const sample::TokenLogprob> top;  // when asked for; valid during the call
};

// How the next token is to be drawn.
struct TokenChoice {
  const sample::TokenSet* allowed = nullptr;  // null: all
  bool greedy = false;                        // instead of the request's sampling
};

enum class TokenVerdict {
  kContinue,
  kFinish,  // the answer ends with this token
  kInsert,  // insertion() says what follows
};

// Tokens put into the transcript without being drawn; they count as the answer's.
struct TokenInsertion {
  bool drops_token = false;  // the token just drawn is taken back
  std::vector<TokenId> tokens;
};

enum class EndReason {
  kEndOfTurn,  // the model ended its turn
  kLength,     // tokens_max or the context is used up
  kClient,     // the client said kFinish
  kCancelled,
  kFailed,
};

// Names the state that an answer left in memory, for Scheduler::remember().
struct SlotTicket {
  std::uint32_t slot = 0;
  std::uint64_t serial = 0;
};

struct GenerationResult {
  EndReason reason = EndReason::kEndOfTurn;
  ErrorCode error = ErrorCode::kInternal;  // for kFailed
  std::string message;                     // for kFailed
  std::uint32_t prompt_tokens = 0;
  std::uint32_t reused_tokens = 0;
  std::uint32_t generated_tokens = 0;  // the end of the turn included
  double queue_seconds = 0;
  double prefill_seconds = 0;
  double decode_seconds = 0;
  SlotTicket ticket;
};

// Takes one answer, token by token.  Every method is called on the engine's thread and must neither
// block nor throw; on_finish() comes exactly once and last.
class GenerationClient {
 public:
  GenerationClient() = default;
  GenerationClient(const GenerationClient&) = delete;
  GenerationClient& operator=(const GenerationClient&) = delete;
  virtual ~GenerationClient() = default;

  // Whether there is room for another token.  A client that says no is left out of the batches
  // until it has called Scheduler::wake().
  virtual bool ready() = 0;
  virtual void on_start(const ReuseReport& report) = 0;
  virtual void on_prefill(std::uint32_t done_tokens, std::uint32_t total_tokens) = 0;
  virtual TokenChoice choice() = 0;
  virtual TokenVerdict on_token(const GeneratedToken& token) = 0;
  virtual TokenInsertion insertion() = 0;
  virtual void on_finish(const GenerationResult& result) = 0;
};

}  // namespace ds4
