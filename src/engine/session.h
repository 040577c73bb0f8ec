#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/checkpoints.h"
#include "engine/engine.h"
#include "sample/sampler.h"
#include "tensor/strong.h"

namespace ds4 {

struct SessionOptions {
  std::uint32_t context = 32768;  // tokens, prompt and answer together
  // A rewind replays fewer tokens than this; a multiple of 128, where state is smallest.
  std::uint32_t checkpoint_interval = 512;
  std::uint32_t checkpoint_count = 16;  // kept at most; older ones are thinned out
};

struct SyncOptions {
  // Called after every chunk with tokens done and tokens to do in this call; may be empty.
  std::function<void(std::uint32_t done, std::uint32_t total)> progress;
  std::stop_token stop;  // checked before every chunk
};

// What sync() did.
struct SyncResult {
  std::uint32_t reused = 0;     // tokens of the prompt whose state was kept
  std::uint32_t evaluated = 0;  // tokens run, replayed ones included
};

// One conversation: a token history and the state that belongs to it.  Callers hand over the whole
// prompt each time and the session decides what to keep: it extends, rewinds, or rebuilds.
// Confined to the engine's thread; must not outlive the engine.
class Session {
 public:
  // What a session keeps in host memory, beside the state that its executor holds.
  static std::uint64_t planned_bytes(const ModelConfig& config,
                                     const StateLayout& layout,
                                     const ExecutorInfo& info,
                                     const SessionOptions& options);

  // Allocates the state for the whole context.  Throws Error(kOutOfMemory).
  Session(Engine& engine, const SessionOptions& options);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  // Makes the history equal to `prompt` (at least one token, fewer than the context) and logits()
  // those of its last token.  Throws Error(kContextOverflow) before any work, Error(kCancelled) at
  // a stop: what was evaluated by then stays and a retry continues from it.
  SyncResult sync(std::span<const TokenId> prompt, const SyncOptions& options = {});

  // Appends one token: a decode step.  Allocates nothing.  Throws Error(kContextOverflow) when the
  // context is full.
  void eval(TokenId token);

  // The same for who only draws from what follows: where the executor keeps logits, they stay
  // there, has_logits() is false, and draw() works with what was handed over for `options`.
  void eval_for_draw(TokenId token, const sample::SamplingOptions& options);
  // Draws what follows the last token, from the logits or from what the last eval_for_draw() got,
  // which must have been the executor's last run.  The token is the same either way.
  TokenId draw(sample::Sampler& sampler,
               const sample::SamplingOptions& options,
               const sample::TokenSet* allowed = nullptr);

  // Makes logits() those of the last token, where they stayed on the device; under the same
  // condition.
  void fetch_logits();

  // Appends `first` and, where the model's MTP block drafts what greedy decoding would choose, the
  // tokens after it: at most `draft_count` more, none after `stop`.  Returns the tokens appended.
  // The tokens are the same as without drafting.  Afterwards draw() works as after eval_for_draw()
  // with greedy options.
  std::span<const TokenId> eval_speculative(TokenId first, std::uint32_t draft_count, TokenId stop);

  // The two halves of a step for a scheduler that runs rows of several sessions in one batch.
  // stage() appends the rows of the next `tokens` (logits for the last one when asked); after the
  // executor ran them, commit() takes the same tokens over, with the last one's logits [vocab_size]
  // or none.  Throws Error(kContextOverflow) from stage(), before anything changed.
  void stage(std::span<const TokenId> tokens, bool wants_logits, std::vector<BatchRow>& rows) const;
  void commit(std::span<const TokenId> tokens, std::span<const float> logits);

  // Drops the tokens from `target` on and, where the state can't be cut there, back to the nearest
  // kept checkpoint before it.  Returns the new length.  Runs nothing.
  std::uint32_t cut_back(std::uint32_t target);
  // Drops the tokens from `length` on: exact, by truncation, or by a checkpoint and a replay.
  // logits() are undefined until the next sync() or eval(), unless nothing was dropped.
  void rewind(std::uint32_t length);
  // Forgets everything.
  void clear();

  std::span<const TokenId> tokens() const { return tokens_; }
  std::uint32_t length() const { return static_cast<std::uint32_t>(tokens_.size()); }
  std::uint32_t context() const { return options_.context; }
  // [vocab_size], of the last token.
  std::span<const float> logits() const { return logits_; }
  bool has_logits() const { return logits_valid_; }
  // Leading tokens that the history shares with `prompt`.
  std::uint32_t common_prefix(std::span<const TokenId> prompt) const;

  // The exact state as bytes: portable between backends, refused by another model.
  std::vector<std::byte> export_state() const;
  // Replaces everything by an exported state.  Throws Error(kBadFormat) with the reason, before
  // anything is changed.
  void import_state(std::span<const std::byte> bytes);

  // For stores that keep state by sections: the sequence inside the executor.
  SequenceId sequence() const { return sequence_; }
  // Adopts a state whose sections were written to sequence() between begin_restore() and now.
  // `logits` may be empty: sync() then evaluates at least one token.
  void adopt(std::span<const TokenId> tokens, std::span<const float> logits);
  const Checkpoints& checkpoints() const { return checkpoints_; }
  Engine& engine() { return engine_; }

 private:
  void prefill(std::span<const TokenId> suffix, const SyncOptions& options, SyncResult& result);
  void run_chunk(std::span<const TokenId> chunk, BatchOutputs outputs);
  BatchOutputs logit_output() { return {.logits = Rows(logits_.data(), {1, logits_.size()})}; }
  void forget_logits();
  TokenId draft_after(TokenId token, std::uint32_t depth);
  BatchOutputs verify_outputs();
  TokenId verified_choice(std::size_t index) const;
  void adopt_verified(std::size_t index);
  void save_checkpoint_if_due();
  void check_room(std::size_t token_count) const;

  Engine& engine_;
  Executor& executor_;
  const SessionOptions options_;
  SequenceId sequence_;
  std::vector<TokenId> tokens_;  // capacity: context
  std::vector<float> logits_;    // [vocab_size]
  bool logits_valid_ = false;
  sample::CandidateSet candidates_;  // of the last token, where the executor keeps its logits
  std::size_t candidate_row_ = 0;    // those logits, for Executor::read_logits()
  bool candidates_valid_ = false;
  Checkpoints checkpoints_;
  // Scratch of run_chunk() and eval_speculative(), reserved once.
  std::vector<BatchRow> rows_;
  // Of the rows of a speculative pass, where there is an MTP block: their logits [rewind_max,
  // vocab_size], or what stands for them where the executor keeps those.
  std::vector<float> verify_logits_;
  std::vector<sample::CandidateQuery> verify_queries_;  // [rewind_max], greedy
  std::vector<sample::CandidateSet> verify_sets_;       // likewise
  std::vector<TokenId> accepted_;
};

}  // namespace ds4
