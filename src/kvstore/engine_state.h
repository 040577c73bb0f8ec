#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/executor.h"
#include "engine/session.h"
#include "kvstore/state_io.h"

// The engine's state as the store's plain data: the one place of this module that knows both.
namespace ds4::kvstore {

// Describes the state that sequences of this executor have.  Every length's rows are exactly those
// of the executor's own layout.
StateLayout layout_of(const Executor& executor);

// The model of `engine` as keys of stored states see it: weights, row codec and, when directions
// are applied, the steering, which changes every row.
ModelIdentity identity_of(Engine& engine);

// The bytes by which `tokens` are stored and found (engine/prompt_key.h), and how many each has.
struct TokenText {
  std::string text;
  std::vector<std::uint32_t> token_bytes;  // [tokens]
};
TokenText token_text(const tokenizer::Tokenizer& tokenizer, std::span<const TokenId> tokens);

// Exports a live session: its current length, and earlier ones where it kept a checkpoint. Confined
// to the engine's thread; the session must not change while a save reads from it.
class SessionSource final : public StateSource {
 public:
  // `layout` is layout_of() the session's executor and must outlive this.
  SessionSource(Session& session, const StateLayout& layout);

  void read_rows(std::size_t array_index,
                 std::uint64_t row_begin,
                 std::span<std::byte> out) override;
  bool has_carry(std::uint64_t token_count) const override;
  bool has_logits(std::uint64_t token_count) const override;
  void read_carry(std::size_t array_index,
                  std::uint64_t token_count,
                  std::span<std::byte> out) override;

 private:
  Session& session_;
  const Executor& executor_;
  const StateLayout& layout_;
};

// Imports into a session.  Confined to the engine's thread.  Whatever the session held is gone as
// soon as begin() is called; unless finish() follows, the destructor leaves it empty.
class SessionSink final : public StateSink {
 public:
  SessionSink(Session& session, const StateLayout& layout);
  SessionSink(const SessionSink&) = delete;
  SessionSink& operator=(const SessionSink&) = delete;
  ~SessionSink() override;

  // Throws Error(kContextOverflow) when the session's context is too small.
  void begin(std::uint64_t token_count) override;
  void write_rows(std::size_t array_index,
                  std::uint64_t row_begin,
                  std::span<const std::byte> bytes) override;
  void write_carry(std::size_t array_index, std::span<const std::byte> bytes) override;

  // Makes the session go on from the restored state, whose tokens these are.
  void finish(std::span<const TokenId> tokens);

 private:
  Session& session_;
  Executor& executor_;
  const StateLayout& layout_;
  std::uint64_t token_count_ = 0;
  std::vector<float> logits_;  // [vocab_size] once they came
  bool open_ = false;          // begun and not finished
};

}  // namespace ds4::kvstore
