#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "answer.h"
#include "chat/effort.h"
#include "chat/render.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "kept_chats.h"
#include "prefix_turns.h"
#include "sample/sampler.h"

namespace ds4::app {

struct ConversationOptions {
  std::uint32_t context = 32768;
  std::string system;
  std::vector<PrefixTurn> prefix;
  chat::ThinkMode think = chat::ThinkMode::kHigh;
  sample::SamplingOptions sampling;
  std::uint64_t seed = 1;
  std::uint32_t token_max = 50000;
  std::uint32_t draft_count = 0;
};

// A chat over several turns, kept as tokens: what the model said is never tokenised again, so each
// turn's prompt is the last one's transcript plus a suffix.  Confined to the engine's thread; must
// not outlive the engine.
class Conversation {
 public:
  // Throws what opening a session throws.
  Conversation(Engine& engine, ConversationOptions options);

  // One turn.  An answer that was stopped with something to show is kept and closed; without a
  // token, or on any Error, the turn is as if it had not been asked.
  AnswerResult ask(std::string_view text, const AnswerCallbacks& callbacks);

  // For the turns to come.  Changing to or from a mode with an effort prefix changes the
  // transcript's first tokens: the next turn reads all of it again.
  void set_think(chat::ThinkMode think);
  chat::ThinkMode think() const { return options_.think; }

  // Replaces the session by one of `context` tokens; the transcript stays and is read again at the
  // next turn.  Throws Error(kInvalidArgument) for a context that the transcript or the model does
  // not fit, and then changes nothing.
  void set_context(std::uint32_t context);

  // Keeps the transcript and the exact state under a name.  Throws what KeptChats::save() throws.
  void save(KeptChats& chats, std::string_view name);
  // Continues a kept conversation.  Throws Error(kBadFormat | kUnsupported | kContextOverflow |
  // kNotFound) and then changes nothing.  Returns the tokens whose state came with it.
  std::uint32_t load(KeptChats& chats, std::string_view name);

  std::uint32_t context() const { return options_.context; }
  // Tokens of the transcript.
  std::size_t length() const { return head_.size() + body_.size(); }
  std::uint32_t turn_count() const { return turn_count_; }
  std::vector<TokenId> transcript() const;
  Engine& engine() const { return engine_; }
  const Session& session() const { return *session_; }

 private:
  void rebuild_head();
  void close_turn(const AnswerResult& result);
  chat::ThinkMode effective_think() const;
  chat::RenderOptions render_options() const;
  GenerateOptions generate_options() const;

  Engine& engine_;
  ConversationOptions options_;
  chat::EffortLadder ladder_;
  std::unique_ptr<Session> session_;
  sample::Sampler sampler_;
  std::vector<TokenId> head_;  // BOS, effort prefix, system text
  std::vector<TokenId> body_;  // the turns
  std::uint32_t turn_count_ = 0;
};

}  // namespace ds4::app
