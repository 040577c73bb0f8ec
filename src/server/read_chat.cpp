// The chat completions and the legacy completions protocols.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/read_common.h"

namespace ds4::server {

namespace {

constexpr std::size_t kMessagesMax = 65536;
constexpr std::string_view kDefaultSystem = "You are a helpful assistant.";

chat::ToolCall read_call(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  const Fields inner(fields.required("function"), fields.path_of("function"));
  chat::ToolCall call;
  call.id = fields.text("id").value_or("");
  call.name = inner.text("name").value_or("");
  const Json* arguments = inner.find("arguments");
  if (arguments != nullptr)
    call.arguments = arguments->is_string() ? arguments->get<std::string>() : dump(*arguments);
  if (call.arguments.empty()) call.arguments = "{}";
  return call;
}

chat::Message read_message(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  chat::Message message;
  const std::string role = fields.text("role").value_or("");
  const bool is_tool = role == "tool" || role == "function";
  message.role = is_tool ? chat::Role::kTool : read_role(fields);
  const bool has_content = message.role != chat::Role::kAssistant || fields.has("content");
  message.content = has_content ? read_text_content(fields.required("content"),
                                                    fields.path_of("content"), {"text", "refusal"})
                                : std::string();
  message.tool_call_id = fields.text("tool_call_id").value_or("");
  if (message.role != chat::Role::kAssistant) return message;
  message.reasoning =
      fields.text("reasoning_content").value_or(fields.text("reasoning").value_or(""));
  fields.each("tool_calls", [&](const Json& call, const std::string& place) {
    message.tool_calls.push_back(read_call(call, place));
  });
  return message;
}

void read_tools(const Fields& body, Ask& ask) {
  body.each("tools", [&](const Json& tool, const std::string& where) {
    const Fields fields(tool, where);
    const std::string type = fields.text("type").value_or("function");
    if (type != "function")
      refuse_field(where + ".type", fmt::format("\"{}\" tools are not supported", type));
    const Json* function = fields.object("function");
    ask.tools.push_back(read_function(function == nullptr ? tool : *function,
                                      function == nullptr ? where : where + ".function",
                                      "parameters"));
  });
  read_tool_choice(body, ask);
}

void refuse_unsupported(const Fields& body) {
  body.refuse_unless("n", "1");
  body.refuse_unless("best_of", "1");
  body.refuse_unless("frequency_penalty", "0");
  body.refuse_unless("presence_penalty", "0");
  body.refuse_unless("repetition_penalty", "1");
  body.refuse_unless("logit_bias", "{}");
  body.refuse_unless("echo", "false");
  body.refuse_unless("suffix", "\"\"");
}

void read_stream_options(const Fields& body, Ask& ask) {
  const Json* options = body.object("stream_options");
  if (options == nullptr) return;
  const Fields fields(*options, "stream_options");
  fields.refuse_unknown({"include_usage", "include_obfuscation"});
  ask.include_usage = fields.flag("include_usage").value_or(false);
}

// What both protocols have.
Ask read_shared(const Fields& body, const AskDefaults& defaults, Protocol protocol) {
  refuse_unsupported(body);
  Ask ask;
  ask.protocol = protocol;
  read_settings(body, defaults, ask);
  read_stream_options(body, ask);
  ask.stops = read_stops(body, "stop");
  read_tokens_max(body, "max_tokens", ask);
  return ask;
}

void read_logprobs(const Fields& body, Ask& ask) {
  if (body.flag("logprobs").value_or(false)) ask.top_logprobs = 0;
  if (const auto count = read_top_logprobs(body, "top_logprobs")) {
    if (!ask.top_logprobs && *count > 0) refuse_field("top_logprobs", "needs logprobs: true");
    if (ask.top_logprobs) ask.top_logprobs = count;
  }
}

void read_conversation(const Fields& body, Ask& ask) {
  const Json* messages = body.list("messages");
  if (messages == nullptr || messages->empty()) refuse_field("messages", "is missing or empty");
  if (messages->size() > kMessagesMax)
    refuse_field("messages", fmt::format("at most {} messages", kMessagesMax));
  std::vector<std::string> system_texts;
  body.each("messages", [&](const Json& item, const std::string& where) {
    chat::Message message = read_message(item, where);
    if (message.role == chat::Role::kSystem) {
      add_system(*std::move(message.content), ask, system_texts);
    } else {
      ask.messages.push_back(std::move(message));
    }
  });
  place_system(ask, system_texts);
}

}  // namespace

Ask read_chat(std::string_view text, const AskDefaults& defaults) {
  const Json json = parse_body(text);
  const Fields body(json, "");
  // The last line: fields that change nothing in the answer.
  body.refuse_unknown({"messages",
                       "model",
                       "tools",
                       "tool_choice",
                       "parallel_tool_calls",
                       "max_tokens",
                       "max_completion_tokens",
                       "temperature",
                       "top_p",
                       "top_k",
                       "min_p",
                       "seed",
                       "stop",
                       "stream",
                       "stream_options",
                       "thinking",
                       "think",
                       "thinking_budget",
                       "reasoning_effort",
                       "chat_template_kwargs",
                       "response_format",
                       "logprobs",
                       "top_logprobs",
                       "n",
                       "best_of",
                       "frequency_penalty",
                       "presence_penalty",
                       "repetition_penalty",
                       "logit_bias",
                       "modalities",
                       "user",
                       "metadata",
                       "store",
                       "service_tier",
                       "prompt_cache_key",
                       "safety_identifier",
                       "prompt_cache_retention",
                       "verbosity"});
  body.refuse_unless("modalities", "[\"text\"]");
  Ask ask = read_shared(body, defaults, Protocol::kChat);
  read_tools(body, ask);
  read_tokens_max(body, "max_completion_tokens", ask);
  read_logprobs(body, ask);
  if (const Json* format = body.find("response_format"))
    ask.format = read_format(*format, "response_format", SchemaPlace::kMember);

  read_conversation(body, ask);
  return ask;
}

Ask read_completions(std::string_view text, const AskDefaults& defaults) {
  const Json json = parse_body(text);
  const Fields body(json, "");
  body.refuse_unknown({"prompt",
                       "model",
                       "max_tokens",
                       "temperature",
                       "top_p",
                       "top_k",
                       "min_p",
                       "seed",
                       "stop",
                       "stream",
                       "stream_options",
                       "thinking",
                       "think",
                       "reasoning_effort",
                       "logprobs",
                       "n",
                       "best_of",
                       "frequency_penalty",
                       "presence_penalty",
                       "repetition_penalty",
                       "logit_bias",
                       "echo",
                       "suffix",
                       "user"});
  Ask ask = read_shared(body, defaults, Protocol::kCompletions);
  ask.top_logprobs = read_top_logprobs(body, "logprobs");
  const Json* prompt = &body.required("prompt");
  if (prompt->is_array()) {
    if (prompt->size() != 1) refuse_field("prompt", "expected one text; a list may hold one");
    prompt = &prompt->front();
  }
  if (!prompt->is_string()) refuse_field("prompt", "expected text");
  ask.messages.push_back(chat::user_message(prompt->get<std::string>()));
  place_system(ask, {std::string(kDefaultSystem)});
  return ask;
}

}  // namespace ds4::server
