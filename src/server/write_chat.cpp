// The chat completions and the legacy completions protocols.
#include <utility>

#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "server/answer.h"
#include "server/errors.h"
#include "server/json_read.h"
#include "server/write_common.h"
#include "server/writer.h"

namespace ds4::server {

namespace {

const char* finish_name(Finish finish) {
  switch (finish) {
    case Finish::kStop:
    case Finish::kStopText:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kToolCalls:
      return "tool_calls";
    case Finish::kError:
    case Finish::kCancelled:
      return "error";
  }
  return "error";
}

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.answer_tokens},
          {"total_tokens", usage.prompt_tokens + usage.answer_tokens},
          {"prompt_tokens_details",
           {{"cached_tokens", usage.cached_tokens},
            {"cache_write_tokens", usage.prompt_tokens - usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

Json call_json(const Ask& ask,
               const std::string& id,
               const std::string& name,
               const std::string& arguments) {
  const OfferedTool* tool = find_tool(ask, name);
  return {
      {"id", id},
      {"type", "function"},
      {"function", {{"name", tool == nullptr ? name : tool->wire_name}, {"arguments", arguments}}}};
}

void add_error(Protocol protocol, const Outcome& outcome, std::string& out) {
  const Failure failure = failure_of(failure_of_outcome(outcome));
  out += "event: error\ndata: " + error_body(protocol, failure) + "\n\n";
}

class ChatWriter final : public Writer {
 public:
  ChatWriter(const Ask& ask, const WriterOptions& options)
      : ask_(ask),
        created_s_(options.created_s),
        id_(options.id.empty() ? random_id("chatcmpl-", 12) : options.id) {}

  void begin(std::string& out) override {
    chunk({{"role", "assistant"}, {"content", ""}}, nullptr, out);
  }

  void add(const AnswerEvent& event, std::string& out) override {
    if (const auto* text = std::get_if<TextDelta>(&event)) {
      chunk({{"content", text->text}}, nullptr, out);
    } else if (const auto* reasoning = std::get_if<ReasoningDelta>(&event)) {
      chunk({{"reasoning_content", reasoning->text}}, nullptr, out);
    } else if (const auto* token = std::get_if<TokenInfo>(&event)) {
      logprobs_ = Json{{"content", Json::array({token_json(*token)})}};
      chunk({{"content", ""}}, nullptr, out);
      logprobs_ = nullptr;
    } else if (const auto* call = std::get_if<CallOpened>(&event)) {
      Json head = {{"index", ++calls_ - 1}};
      head.update(call_json(ask_, call->id, call->name, ""));
      chunk({{"tool_calls", Json::array({std::move(head)})}}, nullptr, out);
    } else if (const auto* piece = std::get_if<CallArguments>(&event)) {
      Json rest = {{"index", calls_ - 1}, {"function", {{"arguments", piece->json}}}};
      chunk({{"tool_calls", Json::array({std::move(rest)})}}, nullptr, out);
    } else if (const auto* outcome = std::get_if<Outcome>(&event)) {
      add_end(*outcome, out);
    }
  }

  void keep_alive(std::string& out) override { out += ": waiting\n\n"; }

  std::string whole(const AnswerRecord& record, const Outcome& outcome) override {
    Json message = {{"role", "assistant"}, {"content", record.text}};
    if (!record.reasoning.empty()) message["reasoning_content"] = record.reasoning;
    if (!record.calls.empty()) {
      if (record.text.empty()) message["content"] = nullptr;
      Json calls = Json::array();
      for (const FinishedCall& call : record.calls)
        calls.push_back(call_json(ask_, call.id, call.name, call.arguments));
      message["tool_calls"] = std::move(calls);
    }
    Json logprobs = nullptr;
    if (ask_.top_logprobs) {
      logprobs = {{"content", Json::array()}};
      for (const TokenInfo& token : record.tokens)
        logprobs["content"].push_back(token_json(token));
    }
    Json choice = {{"index", 0},
                   {"message", std::move(message)},
                   {"logprobs", std::move(logprobs)},
                   {"finish_reason", finish_name(outcome.finish)}};
    return dump({{"id", id_},
                 {"object", "chat.completion"},
                 {"created", created_s_},
                 {"model", ask_.model},
                 {"choices", Json::array({std::move(choice)})},
                 {"usage", usage_json(outcome.usage)}});
  }

 private:
  void frame(Json choices, Json usage, std::string& out) const {
    Json json = {{"id", id_},
                 {"object", "chat.completion.chunk"},
                 {"created", created_s_},
                 {"model", ask_.model},
                 {"choices", std::move(choices)}};
    if (ask_.include_usage) json["usage"] = std::move(usage);
    out += "data: " + dump(json) + "\n\n";
  }
  void chunk(Json delta, Json finish, std::string& out) const {
    Json choice = {{"index", 0}, {"delta", std::move(delta)}};
    if (ask_.top_logprobs) choice["logprobs"] = logprobs_;
    choice["finish_reason"] = std::move(finish);
    frame(Json::array({std::move(choice)}), nullptr, out);
  }
  void add_end(const Outcome& outcome, std::string& out) {
    if (is_failure(outcome)) return add_error(Protocol::kChat, outcome, out);
    chunk(Json::object(), finish_name(outcome.finish), out);
    if (ask_.include_usage) frame(Json::array(), usage_json(outcome.usage), out);
    out += "data: [DONE]\n\n";
  }

  const Ask& ask_;
  std::int64_t created_s_;
  std::string id_;
  Json logprobs_ = nullptr;
  std::size_t calls_ = 0;  // opened so far
};

class CompletionsWriter final : public Writer {
 public:
  CompletionsWriter(const Ask& ask, const WriterOptions& options)
      : ask_(ask),
        created_s_(options.created_s),
        id_(options.id.empty() ? random_id("cmpl-", 12) : options.id) {}

  void begin(std::string&) override {}
  void add(const AnswerEvent& event, std::string& out) override {
    if (const auto* text = std::get_if<TextDelta>(&event)) {
      frame(text->text, nullptr, {}, out);
    } else if (const auto* token = std::get_if<TokenInfo>(&event)) {
      frame("", nullptr, {*token}, out);
    } else if (const auto* outcome = std::get_if<Outcome>(&event)) {
      if (is_failure(*outcome)) return add_error(Protocol::kCompletions, *outcome, out);
      frame("", finish_name(outcome->finish), {}, out);
      if (ask_.include_usage) {
        Json json = head(Json::array());
        json["usage"] = usage_json(outcome->usage);
        out += "data: " + dump(json) + "\n\n";
      }
      out += "data: [DONE]\n\n";
    }
  }
  void keep_alive(std::string& out) override { out += ": waiting\n\n"; }

  std::string whole(const AnswerRecord& record, const Outcome& outcome) override {
    std::size_t offset = 0;
    Json json = head(Json::array(
        {choice(record.text, finish_name(outcome.finish), logprobs_json(record.tokens, offset))}));
    json["usage"] = usage_json(outcome.usage);
    return dump(json);
  }

 private:
  Json head(Json choices) const {
    return {{"id", id_},
            {"object", "text_completion"},
            {"created", created_s_},
            {"model", ask_.model},
            {"choices", std::move(choices)}};
  }
  static Json choice(const std::string& text, Json finish, Json logprobs) {
    return {{"text", text},
            {"index", 0},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", std::move(finish)}};
  }
  // The legacy form: lists side by side, offsets counted in bytes of the text.
  Json logprobs_json(const std::vector<TokenInfo>& tokens, std::size_t& offset) const {
    if (!ask_.top_logprobs || tokens.empty()) return nullptr;
    Json json = {{"tokens", Json::array()},
                 {"token_logprobs", Json::array()},
                 {"top_logprobs", Json::array()},
                 {"text_offset", Json::array()}};
    for (const TokenInfo& token : tokens) {
      Json top = Json::object();
      for (const TokenAlternative& other : token.top)
        top[to_valid_utf8(other.bytes)] = other.logprob;
      json["tokens"].push_back(to_valid_utf8(token.chosen.bytes));
      json["token_logprobs"].push_back(token.chosen.logprob);
      json["top_logprobs"].push_back(std::move(top));
      json["text_offset"].push_back(offset);
      offset += token.chosen.bytes.size();
    }
    return json;
  }
  void frame(const std::string& text,
             Json finish,
             const std::vector<TokenInfo>& tokens,
             std::string& out) {
    Json json =
        head(Json::array({choice(text, std::move(finish), logprobs_json(tokens, text_offset_))}));
    if (ask_.include_usage) json["usage"] = nullptr;
    out += "data: " + dump(json) + "\n\n";
  }

  const Ask& ask_;
  std::int64_t created_s_;
  std::string id_;
  std::size_t text_offset_ = 0;  // of the next token whose log probability is told
};

}  // namespace

std::unique_ptr<Writer> make_chat_writer(const Ask& ask, const WriterOptions& options) {
  return std::make_unique<ChatWriter>(ask, options);
}

std::unique_ptr<Writer> make_completions_writer(const Ask& ask, const WriterOptions& options) {
  return std::make_unique<CompletionsWriter>(ask, options);
}

std::unique_ptr<Writer> make_writer(const Ask& ask, const WriterOptions& options) {
  switch (ask.protocol) {
    case Protocol::kChat:
      return make_chat_writer(ask, options);
    case Protocol::kCompletions:
      return make_completions_writer(ask, options);
    case Protocol::kMessages:
      return make_messages_writer(ask, options);
    case Protocol::kResponses:
      return make_responses_writer(ask, options);
  }
  return nullptr;
}

const OfferedTool* find_tool(const Ask& ask, std::string_view name) {
  for (const OfferedTool& tool : ask.tools)
    if (tool.name == name) return &tool;
  return nullptr;
}

}  // namespace ds4::server
