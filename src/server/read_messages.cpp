// The Anthropic Messages protocol.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/read_common.h"

namespace ds4::server {

namespace {

// Lines that Anthropic's client puts before the system prompt; they change with every request and
// say nothing to the model.
constexpr std::string_view kVolatileSystem = "x-anthropic-";

std::vector<std::string> read_system(const Json& system) {
  if (system.is_string()) return {system.get<std::string>()};
  if (!system.is_array()) refuse_field("system", "expected text or a list of text blocks");
  std::vector<std::string> texts;
  std::size_t index = 0;
  for (const Json& part : system) {
    const std::string where = fmt::format("system[{}]", index++);
    const Fields fields(part, where);
    if (fields.text("type").value_or("text") != "text")
      refuse_field(where + ".type", "expected text");
    std::string text = fields.text("text").value_or("");
    if (!text.starts_with(kVolatileSystem)) texts.push_back(std::move(text));
  }
  return texts;
}

// Collects the blocks of one message: an assistant's into one message; a user's into the results
// first and then the text, as the blocks come.
class BlockReader {
 public:
  BlockReader(Ask& ask, chat::Role role) : ask_(ask) { message_.role = role; }

  void read(const Json& block, const std::string& where) {
    const Fields fields(block, where);
    const std::string type = fields.text("type").value_or("");
    const bool assistant = message_.role == chat::Role::kAssistant;
    if (type == "text") {
      add_text(fields.text("text").value_or(""));
    } else if (type == "thinking" && assistant) {
      message_.reasoning += fields.text("thinking").value_or("");
    } else if (type == "redacted_thinking" && assistant) {
      return;  // not ours: nothing to show the model
    } else if (type == "tool_use" && assistant) {
      const Json* input = fields.object("input");
      message_.tool_calls.push_back({.id = fields.text("id").value_or(""),
                                     .name = fields.text("name").value_or(""),
                                     .arguments = input == nullptr ? "{}" : dump(*input)});
    } else if (type == "tool_result" && !assistant) {
      flush();
      const Json* content = fields.find("content");
      std::string text = content == nullptr ? std::string()
                                            : read_text_content(*content, where + ".content",
                                                                {"text", "tool_reference"});
      ask_.messages.push_back(
          chat::tool_message(fields.text("tool_use_id").value_or(""), std::move(text)));
    } else if (type == "image" || type == "document") {
      refuse_field(where + ".type",
                   "images and other media are not supported: this model reads text alone");
    } else {
      refuse_field(where + ".type", fmt::format("content of type \"{}\" is not supported", type));
    }
  }
  void add_text(const std::string& text) {
    if (message_.content && !message_.content->empty() && !text.empty())
      *message_.content += "\n\n";
    message_.content = message_.content.value_or("") + text;
  }
  void flush() {
    const bool assistant = message_.role == chat::Role::kAssistant;
    if (!assistant && !message_.content) return;
    if (!message_.content) message_.content = "";
    const chat::Role role = message_.role;
    ask_.messages.push_back(std::exchange(message_, {}));
    message_.role = role;
  }

 private:
  Ask& ask_;
  chat::Message message_;
};

void read_turns(const Fields& body, Ask& ask) {
  const Json* messages = body.list("messages");
  if (messages == nullptr || messages->empty()) refuse_field("messages", "is missing or empty");
  body.each("messages", [&](const Json& item, const std::string& where) {
    const Fields fields(item, where);
    const std::string role = fields.text("role").value_or("");
    if (role != "user" && role != "assistant" && role != "system")
      refuse_field(where + ".role", "expected user or assistant");
    BlockReader reader(ask, role == "assistant" ? chat::Role::kAssistant : chat::Role::kUser);
    const Json& content = fields.required("content");
    if (content.is_string()) {
      reader.add_text(content.get<std::string>());
    } else if (content.is_array()) {
      fields.each("content",
                  [&](const Json& block, const std::string& place) { reader.read(block, place); });
    } else {
      refuse_field(where + ".content", "expected text or a list of blocks");
    }
    reader.flush();
  });
}

void read_tools(const Fields& body, Ask& ask) {
  body.each("tools", [&](const Json& tool, const std::string& where) {
    const Fields fields(tool, where);
    const std::string type = fields.text("type").value_or("custom");
    if (type != "custom" && type != "function")
      refuse_field(where + ".type",
                   fmt::format("the server tool \"{}\" is not available here", type));
    ask.tools.push_back(read_function(tool, where, "input_schema"));
  });
  const Json* choice = body.object("tool_choice");
  if (choice == nullptr) return;
  const Fields fields(*choice, "tool_choice");
  fields.refuse_unknown({"type", "name", "disable_parallel_tool_use"});
  const std::string type = fields.text("type").value_or("auto");
  ask.one_call_at_most = fields.flag("disable_parallel_tool_use").value_or(false);
  if (type == "none") {
    drop_tools(ask);
  } else if (type == "any") {
    require_call(ask);
  } else if (type == "tool") {
    allow_tools({fields.text("name").value_or("")}, ask);
    require_call(ask);
  } else if (type != "auto") {
    refuse_field("tool_choice.type", "expected auto, any, tool or none");
  }
}

void read_output_config(const Fields& body, Ask& ask) {
  const Json* config = body.object("output_config");
  if (config == nullptr) return;
  const Fields fields(*config, "output_config");
  fields.refuse_unknown({"effort", "format"});
  if (fields.has("effort") && chat::is_thinking(ask.think))
    ask.think = read_effort(fields, "effort");
  if (const Json* format = fields.find("format"))
    ask.format = read_format(*format, "output_config.format", SchemaPlace::kInline);
}

Ask read_body(const Json& json, const AskDefaults& defaults) {
  const Fields body(json, "");
  body.refuse_unknown({"messages",
                       "model",
                       "system",
                       "max_tokens",
                       "temperature",
                       "top_p",
                       "top_k",
                       "min_p",
                       "seed",
                       "stop_sequences",
                       "stream",
                       "thinking",
                       "think",
                       "thinking_budget",
                       "reasoning_effort",
                       "chat_template_kwargs",
                       "output_config",
                       "tools",
                       "tool_choice",
                       "metadata",
                       "service_tier",
                       "context_management",
                       "cache_control",
                       "speed",
                       "inference_geo",
                       "betas"});
  Ask ask;
  ask.protocol = Protocol::kMessages;
  read_settings(body, defaults, ask);
  read_output_config(body, ask);
  read_tools(body, ask);
  ask.stops = read_stops(body, "stop_sequences");
  read_tokens_max(body, "max_tokens", ask);
  read_turns(body, ask);
  const Json* system = body.find("system");
  place_system(ask, system == nullptr ? std::vector<std::string>{} : read_system(*system));
  return ask;
}

}  // namespace

Ask read_messages(std::string_view text, const AskDefaults& defaults) {
  const Json json = parse_body(text);
  Ask ask = read_body(json, defaults);
  if (!ask.tokens_max) refuse_field("max_tokens", "is missing");
  return ask;
}

Ask read_messages_to_count(std::string_view text, const AskDefaults& defaults) {
  return read_body(parse_body(text), defaults);
}

}  // namespace ds4::server
