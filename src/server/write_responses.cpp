// The OpenAI Responses protocol.
#include <utility>

#include <nlohmann/json.hpp>

#include "server/answer.h"
#include "server/json_read.h"
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
    } else if (const auto* finished = std::get_if<FinishedCalls>(&event)) {
      for (const FinishedCall& call : finished->calls)
        add_call(call, out);
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
    if (!record.calls.empty()) add(FinishedCalls{record.calls}, ignored);
    finish_items(outcome, ignored);
    return dump(final_response(outcome));
  }

 private:
  enum class Open { kNone, kReasoning, kMessage };

  // Every event carries its number, as the field behind its type.
  void event(const char* type, Json fields, std::string& out) {
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
  Json item_fields(Json more) const {
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
            {"logprobs", Json::array()}};
  }
  void open(Open kind, std::string& out) {
    if (open_ == kind) return;
    close("completed", out);
    open_ = kind;
    text_.clear();
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
            item_fields({{"content_index", 0}, {"text", text_}, {"logprobs", Json::array()}}), out);
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
  Json call_item(const FinishedCall& call,
                 const OfferedTool* tool,
                 const char* status,
                 std::string body) const {
    const bool custom = tool != nullptr && tool->is_custom;
    Json json = {{"id", item_id_},
                 {"type", custom ? "custom_tool_call" : "function_call"},
                 {"status", status},
                 {"call_id", call.id},
                 {"name", tool == nullptr ? call.name : tool->wire_name},
                 {custom ? "input" : "arguments", std::move(body)}};
    if (tool != nullptr && !tool->wire_namespace.empty()) json["namespace"] = tool->wire_namespace;
    return json;
  }
  void add_call(const FinishedCall& call, std::string& out) {
    close("completed", out);
    const OfferedTool* tool = find_tool(ask_, call.name);
    const bool custom = tool != nullptr && tool->is_custom;
    const std::string body = custom ? custom_input(call.arguments) : call.arguments;
    item_id_ = new_id(custom ? "ctc_" : "fc_");
    event("response.output_item.added",
          {{"output_index", items_.size()}, {"item", call_item(call, tool, "in_progress", "")}},
          out);
    const std::string stem =
        custom ? "response.custom_tool_call_input" : "response.function_call_arguments";
    event((stem + ".delta").c_str(), item_fields({{"delta", body}}), out);
    event((stem + ".done").c_str(), item_fields({{custom ? "input" : "arguments", body}}), out);
    done(call_item(call, tool, "completed", body), out);
  }
  void finish_items(const Outcome& outcome, std::string& out) {
    const bool whole = outcome.finish != Finish::kLength && outcome.finish != Finish::kError &&
                       outcome.finish != Finish::kCancelled;
    // An answer always has an item; an empty one is an empty message.
    if (items_.empty() && open_ == Open::kNone && whole) open(Open::kMessage, out);
    close(whole ? "completed" : "incomplete", out);
  }
  Json final_response(const Outcome& outcome) const {
    Json json = response(status_name(outcome.finish));
    if (outcome.finish == Finish::kLength)
      json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    if (outcome.finish == Finish::kError || outcome.finish == Finish::kCancelled) {
      json["error"] = {
          {"code", "server_error"},
          {"message", outcome.message.empty() ? "the answer was cancelled" : outcome.message}};
    }
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
};

}  // namespace

std::unique_ptr<Writer> make_responses_writer(const Ask& ask, const WriterOptions& options) {
  return std::make_unique<ResponsesWriter>(ask, options);
}

}  // namespace ds4::server
