#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "chat/call_grammar.h"
#include "chat/render.h"
#include "chat/response_parser.h"
#include "engine/sched_request.h"
#include "grammar/matcher.h"
#include "server/answer_event.h"
#include "server/ask.h"
#include "server/stop_scanner.h"
#include "tokenizer/tokenizer.h"

namespace ds4::server {

struct AnswerOptions {
  chat::RenderOptions render;
  std::vector<OfferedTool> tools;
  std::vector<std::string> stops;
  std::optional<std::uint32_t> think_tokens_max;
  std::string think_budget_text;  // said before the reasoning is closed for the model
  std::optional<std::uint32_t> top_logprobs;
  bool one_call_at_most = false;
  std::uint32_t tool_retries_max = 2;
  std::string call_id_prefix;                                // "call_", "toolu_"
  chat::AnswerGrammars grammars = {};                        // what the answer may look like
  std::shared_ptr<const grammar::TokenTrie> trie = nullptr;  // needed where there is a grammar
  std::size_t queued_bytes_max = std::size_t{256} << 10;
};

// Counts of what the answer's parser met, for metrics.
struct AnswerCounts {
  chat::RepairCounts repairs{};
  std::uint32_t malformed = 0;
  std::uint32_t tool_retries = 0;
};

// One answer between the engine and a protocol's writer: runs the one DSML parser over the tokens,
// looks for stop texts, keeps the thinking budget, and queues events.  A mask holds the answer to
// the format that was asked for, and every block of calls that the model opens in the official form
// to the tools' schemas; such calls go out as they are written.  Calls in other spellings are held
// until their block is whole, checked against their schemas, and sent back to the model when they
// are malformed.  The GenerationClient part is called on the
// engine's thread; take() may be called from another one.
class Answer final : public GenerationClient {
 public:
  // `notify` is called, from the engine's thread, when the queue stops being empty.
  Answer(const tokenizer::Tokenizer& tokenizer,
         AnswerOptions options,
         std::function<void()> notify);
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  ~Answer() override;

  bool ready() override { return queued_bytes_ < options_.queued_bytes_max; }
  void on_start(const ReuseReport& report) override;
  void on_prefill(std::uint32_t done_tokens, std::uint32_t total_tokens) override;
  TokenChoice choice() override;
  TokenVerdict on_token(const GeneratedToken& token) override;
  TokenInsertion insertion() override { return std::exchange(insertion_, {}); }
  void on_finish(const GenerationResult& result) override;

  // The events queued by now.  `was_full` tells that the engine has to be waked.
  std::vector<AnswerEvent> take(bool& was_full);
  // Valid once the outcome was taken.
  const AnswerCounts& counts() const { return counts_; }

 private:
  void push(AnswerEvent event, std::size_t bytes);
  void feed(std::string_view bytes);
  void handle(const chat::ResponseEvent& event);
  void show_text(std::string_view text);
  bool finish_calls();
  void begin_answer();
  void begin_mask(const std::shared_ptr<const grammar::Grammar>& grammar);
  void open_call(const std::string& name);
  void void_open_call();
  void start_parser(bool in_reasoning);
  TokenVerdict after_end();
  TokenVerdict close_reasoning(bool drops_token, std::string_view before);
  TokenVerdict send_back(const std::string& problem, chat::TranscriptEnd end);
  void push_logprobs(const GeneratedToken& token);
  const OfferedTool* offers(std::string_view name) const;
  std::string problems_of(const std::vector<chat::ParsedCall>& calls) const;

  const tokenizer::Tokenizer& tokenizer_;
  const AnswerOptions options_;
  const std::function<void()> notify_;

  // The engine's thread.
  std::optional<chat::ResponseParser> parser_;
  std::vector<chat::ResponseEvent> parsed_;  // scratch of feed()
  StopScanner stops_;
  std::optional<grammar::Matcher> matcher_;   // while a mask is on
  std::vector<chat::ParsedCall> open_calls_;  // of the block being read
  bool shows_calls_ = false;                  // they go out as they come
  bool call_is_open_ = false;                 // and one has begun and not ended
  std::string raw_;                           // what the model wrote since the reasoning's end
  std::string block_text_;                    // the text shown of it
  bool calls_done_ = false;                   // a whole block is there
  bool stop_found_ = false;
  bool malformed_ = false;  // since the last look
  std::uint32_t reasoning_tokens_ = 0;
  bool reasoning_closed_ = false;
  std::uint32_t retries_ = 0;
  bool closed_for_model_ = false;
  TokenInsertion insertion_;
  Outcome outcome_;
  AnswerCounts counts_;

  // Between threads.
  std::mutex mutex_;
  std::vector<AnswerEvent> queue_;
  std::atomic<std::size_t> queued_bytes_{0};
};

// `prefix` and 32 hexadecimal digits of the system's random source.
std::string random_id(std::string_view prefix, std::size_t byte_count = 16);

}  // namespace ds4::server
