// The OpenAI Responses protocol.
#include <utility>

#include <nlohmann/json.hpp>

#include "server/answer.h"
#include "server/json_read.h"
#include "server/write_common.h"
#include "server/writer.h"

namespace ds4::server {

namespace {

Json usage_json(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details",
           {{"cached_tokens", usage.cached_tokens},
            {"cache_write_tokens", usage.prompt_tokens - usage.cached_tokens}}},
          {"output_tokens", usage.answer_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.answer_tokens}};
}

const char* status_name(Finish finish) {
  switch (finish) {
    case Finish::kStop:
    case Finish::kStopText:
    case Finish::kToolCalls:
      return "completed";
    case Finish::kLength:
      return "incomplete";
    case Finish::kError:
    case Finish::kCancelled:
      return "failed";
  }
  return "failed";
}

// The text in {"input": "..."} while its JSON comes in pieces.
class InputText {
 public:
  // Appends what `json` adds to the text.
  void feed(std::string_view json, std::string& text) {
    constexpr std::string_view kOpening = "{\"input\": \"";
    for (const char c : json) {
      if (opening_.size() < kOpening.size()) {
        opening_ += c;
        continue;
      }
      if (opening_ != kOpening || has_ended_) return;
      if (!escape_.empty() || c == '\\') {
        escape_ += c;
        if (!is_whole_escape()) continue;
        const Json decoded = Json::parse('"' + escape_ + '"', nullptr, false);
        if (decoded.is_string()) text += decoded.get<std::string>();
        escape_.clear();
      } else if (c == '"') {
        has_ended_ = true;
      } else {
        text += c;
      }
    }
  }

 private:
  bool is_whole_escape() const {
    if (escape_.size() < 2 || escape_[1] != 'u') return escape_.size() == 2;
    // A high surrogate needs its other half.
    const bool is_pair = escape_.size() > 3 && (escape_[2] == 'd' || escape_[2] == 'D') &&
                         std::string_view("89abAB").find(escape_[3]) != std::string_view::npos;
    return escape_.size() == (is_pair ? 12U : 6U);
  }

  std::string opening_;
  std::string escape_;
  bool has_ended_ = false;
};

std::string custom_input(const std::string& arguments) {
  const Json json = Json::parse(arguments, nullptr, false);
  if (!json.is_object() || !json.contains("input")) return arguments;
  return json["input"].is_string() ? json["input"].get<std::string>() : dump(json["input"]);
}

// Builds the items in the order they come; the same for a stream and for a whole answer.
class ResponsesWriter final : public Writer {
 public:
  ResponsesWriter(const Ask& ask, const WriterOptions& options)
      : ask_(ask),
        created_s_(options.created_s),
        fixed_ids_(!options.id.empty()),
        id_(fixed_ids_ ? options.id : random_id("resp_", 12)) {}

  void begin(std::string& out) override {
    event("response.created", {{"response", response("in_progress")}}, out);
    event("response.in_progress", {{"response", response("in_progress")}}, out);
  }

  void add(const AnswerEvent& event, std::string& out) override {
    if (const auto* reasoning = std::get_if<ReasoningDelta>(&event)) {
      if (!ask_.shows_reasoning) return;
      open(Open::kReasoning, out);
      text_ += reasoning->text;
      this->event("response.reasoning_summary_text.delta",
                  item_fields({{"summary_index", 0}, {"delta", reasoning->text}}), out);
    } else if (std::holds_alternative<ReasoningClosed>(event)) {
      if (open_ == Open::kReasoning) close("completed", out);
    } else if (const auto* piece = std::get_if<TextDelta>(&event)) {
      open(Open::kMessage, out);
      text_ += piece->text;
      this->event(
          "response.output_text.delta",
          item_fields({{"content_index", 0}, {"delta", piece->text}, {"logprobs", Json::array()}}),
          out);
    } else if (const auto* token = std::get_if<TokenInfo>(&event)) {
      open(Open::kMessage, out);
      Json logprobs = Json::array({token_json(*token)});
      logprobs_.push_back(logprobs[0]);
      this->event("response.output_text.delta",
                  item_fields({{"content_index", 0}, {"delta", ""}, {"logprobs", logprobs}}), out);
    } else if (const auto* call = std::get_if<CallOpened>(&event)) {
      open_call(*call, out);
    } else if (const auto* arguments = std::get_if<CallArguments>(&event)) {
      call_.arguments += arguments->json;
      add_arguments(arguments->json, out);
    } else if (std::holds_alternative<CallClosed>(event)) {
      close_call(out);
    } else if (std::holds_alternative<CallVoided>(event)) {
      done(call_item("incomplete", is_custom() || is_search() ? "" : call_.arguments), out);
    } else if (const auto* outcome = std::get_if<Outcome>(&event)) {
      add_end(*outcome, out);
    }
  }

  void keep_alive(std::string& out) override {
    event("response.in_progress", {{"response", response("in_progress")}}, out);
  }

  std::string whole(const AnswerRecord& record, const Outcome& outcome) override {
    std::string ignored;
    if (!record.reasoning.empty()) add(ReasoningDelta{record.reasoning}, ignored);
    if (outcome.reasoning_closed) add(ReasoningClosed{}, ignored);
    if (!record.text.empty()) add(TextDelta{record.text}, ignored);
    for (const TokenInfo& token : record.tokens)
      add(token, ignored);
    for (const FinishedCall& call : record.calls)
      for (const AnswerEvent& each : events_of(call))
        add(each, ignored);
    finish_items(outcome, ignored);
    return dump(final_response(outcome));
  }

 private:
  enum class Open { kNone, kReasoning, kMessage };

  // Every event carries its number, as the field behind its type.
  void event(const char* type, const Json& fields, std::string& out) {
    Json json = {{"type", type}, {"sequence_number", sequence_++}};
    json.update(fields);
    out.append("event: ").append(type).append("\ndata: ").append(dump(json)).append("\n\n");
  }
  Json response(const char* status) const {
    return {{"id", id_},
            {"object", "response"},
            {"created_at", created_s_},
            {"status", status},
            {"error", nullptr},
            {"incomplete_details", nullptr},
            {"instructions", nullptr},
            {"metadata", Json::object()},
            {"model", ask_.model},
            {"output", items_},
            {"parallel_tool_calls", !ask_.one_call_at_most},
            {"temperature", ask_.sampling.temperature},
            {"tool_choice", "auto"},
            {"tools", Json::array()},
            {"top_p", ask_.sampling.top_p},
            {"usage", nullptr}};
  }
  std::string new_id(const char* prefix) const {
    return fixed_ids_ ? prefix + std::to_string(items_.size()) : random_id(prefix, 12);
  }
  Json item_fields(const Json& more) const {
    Json fields = {{"item_id", item_id_}, {"output_index", items_.size()}};
    fields.update(more);
    return fields;
  }
  Json item(const char* status) const {
    if (open_ == Open::kReasoning) {
      Json summary = Json::array();
      if (!text_.empty()) summary.push_back({{"type", "summary_text"}, {"text", text_}});
      return {{"id", item_id_}, {"type", "reasoning"}, {"status", status}, {"summary", summary}};
    }
    return {{"id", item_id_},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", Json::array({part()})}};
  }
  Json part() const {
    return {{"type", "output_text"},
            {"text", text_},
            {"annotations", Json::array()},
            {"logprobs", logprobs_}};
  }
  void open(Open kind, std::string& out) {
    if (open_ == kind) return;
    close("completed", out);
    open_ = kind;
    text_.clear();
    logprobs_ = Json::array();
    item_id_ = new_id(kind == Open::kReasoning ? "rs_" : "msg_");
    Json opened = item("in_progress");
    if (kind == Open::kMessage) opened["content"] = Json::array();
    event("response.output_item.added",
          {{"output_index", items_.size()}, {"item", std::move(opened)}}, out);
    if (kind == Open::kReasoning) {
      event("response.reasoning_summary_part.added",
            item_fields({{"summary_index", 0}, {"part", {{"type", "summary_text"}, {"text", ""}}}}),
            out);
    } else {
      event("response.content_part.added", item_fields({{"content_index", 0}, {"part", part()}}),
            out);
    }
  }
  void close(const char* status, std::string& out) {
    if (open_ == Open::kNone) return;
    if (open_ == Open::kReasoning) {
      event("response.reasoning_summary_text.done",
            item_fields({{"summary_index", 0}, {"text", text_}}), out);
      event("response.reasoning_summary_part.done",
            item_fields(
                {{"summary_index", 0}, {"part", {{"type", "summary_text"}, {"text", text_}}}}),
            out);
    } else {
      event("response.output_text.done",
            item_fields({{"content_index", 0}, {"text", text_}, {"logprobs", logprobs_}}), out);
      event("response.content_part.done", item_fields({{"content_index", 0}, {"part", part()}}),
            out);
    }
    done(item(status), out);
    open_ = Open::kNone;
  }
  void done(Json finished, std::string& out) {
    event("response.output_item.done", {{"output_index", items_.size()}, {"item", finished}}, out);
    items_.push_back(std::move(finished));
  }
  bool is_custom() const { return call_tool_ != nullptr && call_tool_->is_custom; }
  bool is_search() const { return call_tool_ != nullptr && call_tool_->is_search; }
  Json call_item(const char* status, std::string body) const {
    if (is_search()) {
      return {{"id", item_id_},
              {"type", "tool_search_call"},
              {"status", status},
              {"call_id", call_.id},
              {"execution", "client"},
              {"arguments", Json::parse(body.empty() ? "{}" : body, nullptr, false)}};
    }
    Json json = {{"id", item_id_},
                 {"type", is_custom() ? "custom_tool_call" : "function_call"},
                 {"status", status},
                 {"call_id", call_.id},
                 {"name", call_tool_ == nullptr ? call_.name : call_tool_->wire_name},
                 {is_custom() ? "input" : "arguments", std::move(body)}};
    if (call_tool_ != nullptr && !call_tool_->wire_namespace.empty())
      json["namespace"] = call_tool_->wire_namespace;
    return json;
  }
  void open_call(const CallOpened& call, std::string& out) {
    close("completed", out);
    call_ = {call.id, call.name, {}};
    input_ = {};
    shows_input_ = false;
    call_tool_ = find_tool(ask_, call.name);
    item_id_ = new_id(is_custom() ? "ctc_" : is_search() ? "tsc_" : "fc_");
    event("response.output_item.added",
          {{"output_index", items_.size()}, {"item", call_item("in_progress", "")}}, out);
  }
  // A search shows whole, when it is closed.
  void add_arguments(const std::string& json, std::string& out) {
    if (is_search()) return;
    if (!is_custom())
      return event("response.function_call_arguments.delta", item_fields({{"delta", json}}), out);
    std::string more;
    input_.feed(json, more);
    if (more.empty()) return;
    shows_input_ = true;
    event("response.custom_tool_call_input.delta", item_fields({{"delta", more}}), out);
  }
  void close_call(std::string& out) {
    const std::string body = is_custom() ? custom_input(call_.arguments) : call_.arguments;
    if (is_custom()) {
      if (!shows_input_)
        event("response.custom_tool_call_input.delta", item_fields({{"delta", body}}), out);
      event("response.custom_tool_call_input.done", item_fields({{"input", body}}), out);
    } else if (!is_search()) {
      event("response.function_call_arguments.done", item_fields({{"arguments", body}}), out);
    }
    done(call_item("completed", body), out);
  }
  void finish_items(const Outcome& outcome, std::string& out) {
    const bool whole = outcome.finish != Finish::kLength && !is_failure(outcome);
    // An answer always has an item; an empty one is an empty message.
    if (items_.empty() && open_ == Open::kNone && whole) open(Open::kMessage, out);
    close(whole ? "completed" : "incomplete", out);
  }
  Json final_response(const Outcome& outcome) const {
    Json json = response(status_name(outcome.finish));
    if (outcome.finish == Finish::kLength)
      json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    if (is_failure(outcome))
      json["error"] = {{"code", "server_error"}, {"message", failure_of_outcome(outcome).what()}};
    json["usage"] = usage_json(outcome.usage);
    return json;
  }
  void add_end(const Outcome& outcome, std::string& out) {
    finish_items(outcome, out);
    const std::string type = std::string("response.") + status_name(outcome.finish);
    event(type.c_str(), {{"response", final_response(outcome)}}, out);
  }

  const Ask& ask_;
  std::int64_t created_s_;
  bool fixed_ids_;
  std::string id_;
  std::uint64_t sequence_ = 0;
  Json items_ = Json::array();
  Open open_ = Open::kNone;
  std::string item_id_;
  std::string text_;
  Json logprobs_ = Json::array();  // of the open message's tokens
  FinishedCall call_;              // the one that is open
  const OfferedTool* call_tool_ = nullptr;
  InputText input_;  // of a custom tool
  bool shows_input_ = false;
};

}  // namespace

std::unique_ptr<Writer> make_responses_writer(const Ask& ask, const WriterOptions& options) {
  return std::make_unique<ResponsesWriter>(ask, options);
}

}  // namespace ds4::server
