#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sched_request.h"
#include "engine/session.h"

namespace ds4 {

// A prompt with what slots compare it by.
struct PromptView {
  const tokenizer::RenderedPrompt& prompt;
  std::span<const TokenId> tokens;
  std::string_view key;
  std::string_view name_space;
};

// Views what `request` and `key` own.
inline PromptView view_of(const GenerationRequest& request, std::string_view key) {
  return {.prompt = request.prompt,
          .tokens = request.tokens,
          .key = key,
          .name_space = request.name_space};
}

// How much of a slot's live transcript a prompt can continue from.
struct SlotMatch {
  ReuseSource source = ReuseSource::kCold;
  std::uint32_t kept_tokens = 0;     // of the live transcript
  std::size_t prompt_offset = 0;     // bytes of the prompt's key that they stand for
  std::vector<TokenId> bridge;       // tokens between the live transcript and the prompt's rest
  bool by_tokens = false;            // the rest are the prompt's own tokens from kept_tokens on
  std::size_t first_difference = 0;  // of the keys
};

// Another way a client may send back the conversation that a slot holds: with the hidden parts left
// out.
struct VisibleTurn {
  std::string key;  // prompt_key() of the visible conversation up to its last turn's end
  std::vector<TokenId> bridge;  // what the live transcript still lacks there, e.g. the end marker
};

// One resident conversation of the Scheduler: a Session, the tokens drawn but not yet evaluated,
// and what prompts are compared with.  Confined to the engine's thread.
class Slot {
 public:
  Slot(Engine& engine, const SessionOptions& options);

  Session& session() { return session_; }
  const Session& session() const { return session_; }
  bool empty() const { return key_ends_.empty(); }
  std::uint32_t live_tokens() const { return static_cast<std::uint32_t>(key_ends_.size()); }
  std::string_view key() const { return key_; }
  const std::string& name_space() const { return name_space_; }
  // [live_tokens] bytes of key() up to each token's end
  std::span<const std::uint32_t> key_ends() const { return key_ends_; }
  std::span<const VisibleTurn> visible_turns() const { return visible_; }

  SlotMatch match(const PromptView& prompt) const;
  // Whether `kept` tokens include the first whole prompt that this slot served: then a prompt that
  // leaves the transcript there is a branch of the same conversation.
  bool is_same_conversation(std::uint32_t kept) const;

  // Cuts the transcript back for `match` and returns the whole prompt to evaluate: what is kept and
  // what follows.  session().length() tokens of it need no evaluation.
  std::vector<TokenId> begin(const PromptView& prompt, const SlotMatch& match);
  // Takes over the beginning of `from`'s transcript, up to a checkpoint at or before `length`.
  // Returns the tokens copied.
  std::uint32_t fork(Slot& from, std::uint32_t length);
  // Makes the slot's record that of its session, whose state was restored from elsewhere.
  void adopt(std::string_view name_space);
  void clear();

  // Records a token drawn or inserted after the prompt.
  void push(TokenId token);
  // Takes back the last recorded token, which must not have been evaluated.
  void pop();
  // Forgets the tokens of a prompt that were not evaluated.
  void drop_unevaluated() { truncate_record(session_.length()); }
  std::span<const TokenId> transcript() const { return transcript_; }

  void remember(std::vector<VisibleTurn> turns) { visible_ = std::move(turns); }

  using Clock = std::chrono::steady_clock;
  bool busy = false;
  std::uint64_t serial = 0;  // changes with every answer
  Clock::time_point used = {};

 private:
  void set_transcript(std::span<const TokenId> tokens);
  void truncate_record(std::uint32_t length);

  Engine& engine_;
  Session session_;
  std::string name_space_;
  std::vector<TokenId> transcript_;       // evaluated tokens, then those drawn but not evaluated
  std::string key_;                       // of the transcript
  std::vector<std::uint32_t> key_ends_;   // [transcript] bytes of key_ up to each token's end
  std::vector<std::uint32_t> turn_ends_;  // lengths of the prompts served, ascending
  std::vector<VisibleTurn> visible_;
};

}  // namespace ds4
