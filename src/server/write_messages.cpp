// The Anthropic Messages protocol.
#include <utility>

#include <nlohmann/json.hpp>

#include "server/answer.h"
#include "server/errors.h"
#include "server/json_read.h"
#include "server/write_common.h"
#include "server/writer.h"

namespace ds4::server {

namespace {

const char* stop_reason(Finish finish) {
  switch (finish) {
    case Finish::kStop:
      return "end_turn";
    case Finish::kStopText:
      return "stop_sequence";
    case Finish::kLength:
      return "max_tokens";
    case Finish::kToolCalls:
      return "tool_use";
    case Finish::kError:
    case Finish::kCancelled:
      return "end_turn";
  }
  return "end_turn";
}

Json usage_json(std::uint32_t prompt, std::uint32_t cached, std::uint32_t answer) {
  // Nothing is written to a cache that the client pays for: what was not read is input.
  return {{"input_tokens", prompt - cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", cached},
          {"output_tokens", answer}};
}

Json stop_sequence(const Outcome& outcome) {
  return outcome.finish == Finish::kStopText ? Json(outcome.stop_text) : Json(nullptr);
}

Json parsed_input(const std::string& arguments) {
  Json input = Json::parse(arguments, nullptr, false);
  return input.is_object() ? input : Json::object();
}

class MessagesWriter final : public Writer {
 public:
  MessagesWriter(const Ask& ask, const WriterOptions& options)
      : ask_(ask),
        id_(options.id.empty() ? random_id("msg_", 12) : options.id) {}

  void begin(std::string&) override {}

  void add(const AnswerEvent& event, std::string& out) override {
    if (const auto* report = std::get_if<ReuseReport>(&event)) {
      prompt_tokens_ = report->prompt_tokens;
      cached_tokens_ = report->reused_tokens;
      start(out);
    } else if (const auto* reasoning = std::get_if<ReasoningDelta>(&event)) {
      open(Open::kThinking, out);
      delta({{"type", "thinking_delta"}, {"thinking", reasoning->text}}, out);
    } else if (std::holds_alternative<ReasoningClosed>(event)) {
      if (open_ == Open::kThinking) close(out);
    } else if (const auto* text = std::get_if<TextDelta>(&event)) {
      open(Open::kText, out);
      delta({{"type", "text_delta"}, {"text", text->text}}, out);
    } else if (const auto* call = std::get_if<CallOpened>(&event)) {
      close(out);
      has_content_ = true;
      open_block(
          {{"type", "tool_use"}, {"id", call->id}, {"name", call->name}, {"input", Json::object()}},
          out);
    } else if (const auto* piece = std::get_if<CallArguments>(&event)) {
      delta({{"type", "input_json_delta"}, {"partial_json", piece->json}}, out);
    } else if (std::holds_alternative<CallClosed>(event) ||
               std::holds_alternative<CallVoided>(event)) {
      close_block(out);
    } else if (const auto* outcome = std::get_if<Outcome>(&event)) {
      add_end(*outcome, out);
    }
  }

  void keep_alive(std::string& out) override {
    if (started_) {
      frame("ping", {{"type", "ping"}}, out);
    } else {
      out += ": waiting\n\n";
    }
  }

  std::string whole(const AnswerRecord& record, const Outcome& outcome) override {
    Json content = Json::array();
    if (!record.reasoning.empty())
      content.push_back({{"type", "thinking"}, {"thinking", record.reasoning}, {"signature", id_}});
    if (!record.text.empty() || record.calls.empty())
      content.push_back({{"type", "text"}, {"text", record.text}});
    for (const FinishedCall& call : record.calls) {
      content.push_back({{"type", "tool_use"},
                         {"id", call.id},
                         {"name", call.name},
                         {"input", parsed_input(call.arguments)}});
    }
    const Usage& usage = outcome.usage;
    return dump(
        {{"id", id_},
         {"type", "message"},
         {"role", "assistant"},
         {"model", ask_.model},
         {"content", std::move(content)},
         {"stop_reason", stop_reason(outcome.finish)},
         {"stop_sequence", stop_sequence(outcome)},
         {"usage", usage_json(usage.prompt_tokens, usage.cached_tokens, usage.answer_tokens)}});
  }

 private:
  enum class Open { kNone, kThinking, kText };

  static void frame(std::string_view name, const Json& json, std::string& out) {
    out.append("event: ").append(name).append("\ndata: ").append(dump(json)).append("\n\n");
  }
  void start(std::string& out) {
    started_ = true;
    Json message = {{"id", id_},
                    {"type", "message"},
                    {"role", "assistant"},
                    {"model", ask_.model},
                    {"content", Json::array()},
                    {"stop_reason", nullptr},
                    {"stop_sequence", nullptr},
                    {"usage", usage_json(prompt_tokens_, cached_tokens_, 0)}};
    frame("message_start", {{"type", "message_start"}, {"message", std::move(message)}}, out);
  }
  void open(Open kind, std::string& out) {
    if (open_ == kind) return;
    close(out);
    open_ = kind;
    open_block(kind == Open::kThinking
                   ? Json{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}
                   : Json{{"type", "text"}, {"text", ""}},
               out);
    if (kind == Open::kText) has_content_ = true;
  }
  void open_block(Json block, std::string& out) const {
    frame("content_block_start",
          {{"type", "content_block_start"}, {"index", index_}, {"content_block", std::move(block)}},
          out);
  }
  void delta(Json delta, std::string& out) const {
    frame("content_block_delta",
          {{"type", "content_block_delta"}, {"index", index_}, {"delta", std::move(delta)}}, out);
  }
  void close(std::string& out) {
    if (open_ == Open::kNone) return;
    if (open_ == Open::kThinking) delta({{"type", "signature_delta"}, {"signature", id_}}, out);
    open_ = Open::kNone;
    close_block(out);
  }
  void close_block(std::string& out) {
    frame("content_block_stop", {{"type", "content_block_stop"}, {"index", index_}}, out);
    ++index_;
  }
  void add_end(const Outcome& outcome, std::string& out) {
    if (is_failure(outcome)) {
      const Failure failure = failure_of(failure_of_outcome(outcome));
      out += "event: error\ndata: " + error_body(Protocol::kMessages, failure) + "\n\n";
      return;
    }
    // Clients expect some content beside the thinking.
    if (!has_content_) open(Open::kText, out);
    close(out);
    frame("message_delta",
          {{"type", "message_delta"},
           {"delta",
            {{"stop_reason", stop_reason(outcome.finish)},
             {"stop_sequence", stop_sequence(outcome)}}},
           {"usage", usage_json(outcome.usage.prompt_tokens, outcome.usage.cached_tokens,
                                outcome.usage.answer_tokens)}},
          out);
    frame("message_stop", {{"type", "message_stop"}}, out);
  }

  const Ask& ask_;
  std::string id_;
  std::uint32_t prompt_tokens_ = 0;
  std::uint32_t cached_tokens_ = 0;
  bool started_ = false;
  bool has_content_ = false;
  Open open_ = Open::kNone;
  std::size_t index_ = 0;
};

}  // namespace

std::unique_ptr<Writer> make_messages_writer(const Ask& ask, const WriterOptions& options) {
  return std::make_unique<MessagesWriter>(ask, options);
}

}  // namespace ds4::server
