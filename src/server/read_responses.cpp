// The OpenAI Responses protocol.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/read_common.h"

namespace ds4::server {

namespace {

const std::initializer_list<std::string_view> kTextTypes = {"input_text", "output_text", "text",
                                                            "refusal"};

OfferedTool custom_tool(const Fields& fields, const std::string& where) {
  const Json function = {{"name", fields.text("name").value_or("")},
                         {"description", fields.text("description").value_or("")},
                         {"parameters",
                          {{"type", "object"},
                           {"properties", {{"input", {{"type", "string"}}}}},
                           {"required", {"input"}}}}};
  OfferedTool tool = read_function(function, where, "parameters");
  tool.is_custom = true;
  return tool;
}

// The client's own search for tools that it has not offered yet.
OfferedTool search_tool(const Json& json, const std::string& where) {
  if (Fields(json, where).text("execution").value_or("client") != "client")
    refuse_field(where + ".execution", "only searches by the client are supported");
  Json function = json;
  function["name"] = "tool_search";
  OfferedTool tool = read_function(function, where, "parameters");
  tool.is_search = true;
  return tool;
}

void read_tool(const Json& json, const std::string& where, const std::string& space, Ask& ask) {
  const Fields fields(json, where);
  const std::string type = fields.text("type").value_or("function");
  if (type == "namespace") {
    const std::string name = fields.text("name").value_or("");
    fields.each("tools", [&](const Json& tool, const std::string& place) {
      read_tool(tool, place, name, ask);
    });
  } else if (type == "function") {
    OfferedTool tool = read_function(json, where, "parameters");
    if (!space.empty()) {
      // The model sees one flat name.
      Json schema = Json::parse(tool.schema.json);
      tool.wire_namespace = space;
      tool.name = space + tool.wire_name;
      schema["name"] = tool.name;
      tool.schema.json = dump(schema);
    }
    ask.tools.push_back(std::move(tool));
  } else if (type == "custom") {
    ask.tools.push_back(custom_tool(fields, where));
  } else if (type == "tool_search") {
    ask.tools.push_back(search_tool(json, where));
  } else if (type != "web_search" && type != "web_search_preview") {
    // Web search is offered by clients whether or not the server has it; the model is not told.
    refuse_field(where + ".type", fmt::format("\"{}\" tools are not available here", type));
  }
}

// Turns a flat list of items into messages: an assistant's reasoning, text and calls that follow
// each other are one turn.
class ItemReader {
 public:
  explicit ItemReader(Ask& ask, std::vector<std::string>& system_texts)
      : ask_(ask),
        system_texts_(system_texts) {}

  void read(const Json& item, const std::string& where) {
    const Fields fields(item, where);
    const std::string type = fields.text("type").value_or("message");
    const std::string status = fields.text("status").value_or("completed");
    if (status != "completed" && status != "incomplete")
      refuse_field(where + ".status", "expected a completed item");
    if (type == "message") {
      read_message(fields, where);
    } else if (type == "reasoning") {
      read_reasoning(fields, where);
    } else if (type == "function_call") {
      std::string name = fields.text("name").value_or("");
      name = fields.text("namespace").value_or("") + name;
      add_call(fields, std::move(name), fields.text("arguments").value_or("{}"));
    } else if (type == "custom_tool_call") {
      const Json arguments = {{"input", fields.text("input").value_or("")}};
      add_call(fields, fields.text("name").value_or(""), dump(arguments));
    } else if (type == "local_shell_call") {
      const Json* action = fields.object("action");
      add_call(fields, "local_shell", action == nullptr ? "{}" : dump(*action));
    } else if (type == "tool_search_call") {
      const Json* arguments = fields.find("arguments");
      add_call(fields, "tool_search", arguments == nullptr ? "{}" : dump(*arguments));
    } else if (type == "tool_search_output") {
      read_found_tools(fields, where);
    } else if (type == "function_call_output" || type == "custom_tool_call_output" ||
               type == "local_shell_call_output") {
      read_output(fields, where);
    } else if (type != "compaction" && type != "context_compaction" && type != "web_search_call") {
      refuse_field(where + ".type", fmt::format("items of type \"{}\" are not supported", type));
    }
  }
  void flush() {
    if (!assistant_) return;
    if (!assistant_->content) assistant_->content = "";
    ask_.messages.push_back(std::move(*assistant_));
    assistant_.reset();
  }

 private:
  chat::Message& assistant() {
    if (!assistant_) {
      assistant_.emplace();
      assistant_->role = chat::Role::kAssistant;
    }
    return *assistant_;
  }
  void read_message(const Fields& fields, const std::string& where) {
    std::string text =
        read_text_content(fields.required("content"), where + ".content", kTextTypes);
    const chat::Role role = read_role(fields);
    if (role == chat::Role::kAssistant) {
      // Text behind calls begins another turn.
      if (!assistant().tool_calls.empty()) flush();
      assistant().content = assistant().content.value_or("") + text;
      return;
    }
    flush();
    if (role == chat::Role::kSystem) {
      add_system(std::move(text), ask_, system_texts_);
    } else {
      ask_.messages.push_back(chat::user_message(std::move(text)));
    }
  }
  void read_reasoning(const Fields& fields, const std::string& where) {
    std::string text;
    for (const std::string_view name : {"content", "summary"}) {
      const Json* parts = fields.list(name);
      if (parts == nullptr || !text.empty()) continue;
      for (const Json& part : *parts)
        text += Fields(part, where).text("text").value_or("");
    }
    // Reasoning begins a turn.
    if (assistant_ && (assistant_->content || !assistant_->tool_calls.empty())) flush();
    assistant().reasoning += text;
  }
  void add_call(const Fields& fields, std::string name, std::string arguments) {
    assistant().tool_calls.push_back({.id = fields.text("call_id").value_or(""),
                                      .name = std::move(name),
                                      .arguments = std::move(arguments)});
    known_ids_.push_back(assistant().tool_calls.back().id);
  }
  void read_output(const Fields& fields, const std::string& where) {
    const Json* output = fields.find("output");
    add_result(fields, where,
               output == nullptr ? "" : read_text_content(*output, where + ".output", kTextTypes));
  }
  // Tools that a search found are on offer from now on; the model is told their names.
  void read_found_tools(const Fields& fields, const std::string& where) {
    const std::size_t before = ask_.tools.size();
    fields.each("tools", [&](const Json& tool, const std::string& place) {
      read_tool(tool, place, "", ask_);
    });
    std::string found = "Tools found:";
    for (std::size_t i = before; i < ask_.tools.size(); ++i)
      found += " " + ask_.tools[i].name;
    add_result(fields, where, ask_.tools.size() == before ? "No tools found." : found);
  }
  void add_result(const Fields& fields, const std::string& where, std::string text) {
    flush();
    const std::string id = fields.text("call_id").value_or("");
    if (std::find(known_ids_.begin(), known_ids_.end(), id) == known_ids_.end()) {
      refuse_field(where + ".call_id",
                   fmt::format("no call \"{}\" stands before it: replay the full history", id));
    }
    ask_.messages.push_back(chat::tool_message(id, std::move(text)));
  }

  Ask& ask_;
  std::vector<std::string>& system_texts_;
  std::optional<chat::Message> assistant_;
  std::vector<std::string> known_ids_;
};

void read_tools(const Fields& body, Ask& ask) {
  body.each("tools",
            [&](const Json& tool, const std::string& where) { read_tool(tool, where, "", ask); });
  read_tool_choice(body, ask);
}

void read_reasoning_options(const Fields& body, Ask& ask) {
  ask.shows_reasoning = false;
  const Json* reasoning = body.object("reasoning");
  if (reasoning == nullptr) return;
  const Fields fields(*reasoning, "reasoning");
  fields.refuse_unknown({"effort", "summary", "generate_summary", "context"});
  if (fields.has("effort")) ask.think = read_effort(fields, "effort");
  const std::string summary =
      fields.text("summary").value_or(fields.text("generate_summary").value_or("none"));
  if (summary != "auto" && summary != "concise" && summary != "detailed" && summary != "none")
    refuse_field("reasoning.summary", "expected auto, concise, detailed or none");
  ask.shows_reasoning = summary != "none";
}

// Whatever belongs to tools that this server does not have is never there to be included.
void read_includes(const Fields& body, Ask& ask) {
  constexpr std::string_view kKnown[] = {
      "reasoning.encrypted_content",    "message.input_image.image_url",
      "file_search_call.results",       "computer_call_output.output.image_url",
      "code_interpreter_call.outputs",  "web_search_call.results",
      "web_search_call.action.sources", "message.output_text.logprobs"};
  if (const auto count = read_top_logprobs(body, "top_logprobs"); count && *count > 0)
    ask.top_logprobs = count;
  const Json* includes = body.list("include");
  if (includes == nullptr) return;
  for (const Json& include : *includes) {
    const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                     [&](std::string_view name) { return include == name; });
    if (known == std::end(kKnown))
      refuse_field("include", fmt::format("{} is not known", dump(include)));
    if (*known == "message.output_text.logprobs") ask.top_logprobs = ask.top_logprobs.value_or(0);
  }
}

void read_input(const Fields& body, Ask& ask) {
  std::vector<std::string> system_texts;
  if (const auto instructions = body.text("instructions")) system_texts.push_back(*instructions);
  const Json& input = body.required("input");
  if (input.is_string()) {
    ask.messages.push_back(chat::user_message(input.get<std::string>()));
  } else if (input.is_array() && !input.empty()) {
    ItemReader reader(ask, system_texts);
    body.each("input",
              [&](const Json& item, const std::string& where) { reader.read(item, where); });
    reader.flush();
  } else {
    refuse_field("input", "expected text or a list of items");
  }
  place_system(ask, system_texts);
}

}  // namespace

Ask read_responses(std::string_view text, const AskDefaults& defaults) {
  const Json json = parse_body(text);
  const Fields body(json, "");
  body.refuse_unknown({"input",
                       "instructions",
                       "model",
                       "tools",
                       "tool_choice",
                       "parallel_tool_calls",
                       "max_output_tokens",
                       "temperature",
                       "top_p",
                       "top_k",
                       "min_p",
                       "seed",
                       "stream",
                       "stream_options",
                       "reasoning",
                       "text",
                       "thinking",
                       "thinking_budget",
                       "previous_response_id",
                       "conversation",
                       "truncation",
                       "background",
                       "max_tool_calls",
                       "prompt",
                       "top_logprobs",
                       "include",
                       "store",
                       "metadata",
                       "client_metadata",
                       "service_tier",
                       "user",
                       "prompt_cache_key",
                       "prompt_cache_retention",
                       "safety_identifier"});
  for (const std::string_view name : {"previous_response_id", "conversation"}) {
    if (body.has(name))
      refuse_field(name, "this server keeps no conversations: replay the full input");
  }
  body.refuse_unless("truncation", "\"disabled\"");
  body.refuse_unless("background", "false");
  body.refuse_unless("max_tool_calls", "null");
  body.refuse_unless("prompt", "null");
  Ask ask;
  ask.protocol = Protocol::kResponses;
  read_settings(body, defaults, ask);
  read_reasoning_options(body, ask);
  read_includes(body, ask);
  read_tools(body, ask);
  read_tokens_max(body, "max_output_tokens", ask);
  if (const Json* format_holder = body.object("text")) {
    const Fields fields(*format_holder, "text");
    fields.refuse_unknown({"format", "verbosity"});
    if (const Json* format = fields.find("format"))
      ask.format = read_format(*format, "text.format", SchemaPlace::kInline);
  }
  read_input(body, ask);
  return ask;
}

}  // namespace ds4::server
