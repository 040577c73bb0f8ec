#include "server/read_common.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace ds4::server {

namespace {

constexpr std::size_t kStopsMax = 16;
constexpr std::size_t kStopBytesMax = 1024;
constexpr std::int64_t kTopLogprobsMax = 20;
constexpr std::size_t kToolsMax = 1024;
constexpr std::size_t kModelBytesMax = 256;  // every event of a stream repeats it
constexpr std::int64_t kBudgetMax = 1 << 30;

constexpr std::string_view kNoImages =
    "images and other media are not supported: this model reads text alone";

void read_template_options(const Fields& body, Ask& ask, std::optional<std::int64_t>& budget) {
  const Json* object = body.object("chat_template_kwargs");
  if (object == nullptr) return;
  const Fields options(*object, body.path_of("chat_template_kwargs"));
  options.refuse_unknown({"thinking", "enable_thinking", "thinking_budget", "reasoning_effort"});
  for (const std::string_view name : {"thinking", "enable_thinking"})
    if (const auto on = options.flag(name))
      ask.think = *on ? chat::ThinkMode::kHigh : chat::ThinkMode::kNone;
  if (options.has("reasoning_effort")) ask.think = read_effort(options, "reasoning_effort");
  if (const auto tokens = options.integer("thinking_budget", 0, kBudgetMax)) budget = tokens;
}

}  // namespace

const char* protocol_name(Protocol protocol) {
  switch (protocol) {
    case Protocol::kChat:
      return "chat";
    case Protocol::kCompletions:
      return "completions";
    case Protocol::kMessages:
      return "messages";
    case Protocol::kResponses:
      return "responses";
  }
  return "unknown";
}

namespace {

void read_sampling(const Fields& body, const AskDefaults& defaults, Ask& ask) {
  ask.sampling = defaults.sampling;
  if (const auto value = body.number("temperature", 0, 100))
    ask.sampling.temperature = static_cast<float>(*value);
  if (const auto value = body.number("top_p", 0, 1))
    ask.sampling.top_p = std::max(static_cast<float>(*value), 1e-6F);
  if (const auto value = body.integer("top_k", -1, std::numeric_limits<std::int32_t>::max()))
    ask.sampling.top_k = static_cast<int>(std::clamp<std::int64_t>(*value, 0, sample::kTopKMax));
  if (const auto value = body.number("min_p", 0, 1))
    ask.sampling.min_p = static_cast<float>(*value);
  if (const auto value =
          body.integer("seed", std::numeric_limits<std::int32_t>::min(), std::int64_t{1} << 53))
    ask.seed = static_cast<std::uint64_t>(*value);
  ask.streams = body.flag("stream").value_or(false);
}

void read_model(const Fields& body, const AskDefaults& defaults, Ask& ask) {
  ask.model = body.text("model").value_or(defaults.model);
  if (ask.model.size() > kModelBytesMax)
    refuse_field(body.path_of("model"), fmt::format("at most {} bytes", kModelBytesMax));
  ask.think = defaults.think;
  if (ask.model == "deepseek-chat") ask.think = chat::ThinkMode::kNone;
  if (ask.model == "deepseek-reasoner" && !chat::is_thinking(ask.think))
    ask.think = chat::ThinkMode::kHigh;
}

void read_thinking(const Fields& body, Ask& ask) {
  std::optional<std::int64_t> budget = body.integer("thinking_budget", 0, kBudgetMax);
  if (body.has("reasoning_effort")) ask.think = read_effort(body, "reasoning_effort");
  read_template_options(body, ask, budget);
  const auto set = [&](bool on) {
    if (!on) ask.think = chat::ThinkMode::kNone;
    if (on && !chat::is_thinking(ask.think)) ask.think = chat::ThinkMode::kHigh;
  };
  if (const auto think = body.flag("think")) set(*think);
  if (const Json* thinking = body.find("thinking")) {
    if (thinking->is_boolean()) {
      set(thinking->get<bool>());
    } else {
      const Fields object(*thinking, body.path_of("thinking"));
      object.refuse_unknown({"type", "budget_tokens", "display"});
      const std::string type = object.text("type").value_or("enabled");
      if (type != "enabled" && type != "disabled" && type != "adaptive" && type != "auto")
        refuse_field(object.path_of("type"), "expected enabled, disabled or adaptive");
      set(type != "disabled");
      if (const auto tokens = object.integer("budget_tokens", 0, kBudgetMax)) budget = tokens;
    }
  }
  if (budget) ask.think_tokens_max = static_cast<std::uint32_t>(*budget);
}

}  // namespace

void read_settings(const Fields& body, const AskDefaults& defaults, Ask& ask) {
  read_model(body, defaults, ask);
  read_sampling(body, defaults, ask);
  read_thinking(body, ask);
}

void read_tokens_max(const Fields& body, std::string_view name, Ask& ask) {
  if (const auto most = body.integer(name, 1, kBudgetMax))
    ask.tokens_max = static_cast<std::uint32_t>(*most);
}

std::optional<std::uint32_t> read_top_logprobs(const Fields& body, std::string_view name) {
  const auto count = body.integer(name, 0, kTopLogprobsMax);
  return count ? std::optional(static_cast<std::uint32_t>(*count)) : std::nullopt;
}

std::vector<std::string> read_stops(const Fields& body, std::string_view name) {
  const Json* value = body.find(name);
  std::vector<std::string> stops;
  if (value == nullptr) return stops;
  const auto add = [&](const Json& stop) {
    if (!stop.is_string()) refuse_field(body.path_of(name), "expected text or a list of texts");
    stops.push_back(stop.get<std::string>());
    if (stops.back().empty() || stops.back().size() > kStopBytesMax)
      refuse_field(body.path_of(name), fmt::format("a stop text has 1 to {} bytes", kStopBytesMax));
  };
  if (value->is_array()) {
    if (value->size() > kStopsMax)
      refuse_field(body.path_of(name), fmt::format("at most {} stop texts", kStopsMax));
    for (const Json& stop : *value)
      add(stop);
  } else {
    add(*value);
  }
  return stops;
}

chat::ThinkMode read_effort(const Fields& body, std::string_view name) {
  const std::string effort = body.text(name).value_or("");
  const auto mode = chat::find_think_mode(effort);
  if (!mode) {
    refuse_field(body.path_of(name),
                 fmt::format("\"{}\" is no effort; expected none, minimal, low, medium, high, "
                             "xhigh or max",
                             effort));
  }
  return *mode;
}

OfferedTool read_function(const Json& function,
                          const std::string& where,
                          std::string_view parameters_name) {
  const Fields fields(function, where);
  OfferedTool tool;
  tool.name = fields.text("name").value_or("");
  if (tool.name.empty() || tool.name.size() > 256)
    refuse_field(fields.path_of("name"), "a tool needs a name of 1 to 256 bytes");
  Json schema = Json::object();
  schema["name"] = tool.name;
  if (const auto description = fields.text("description")) schema["description"] = *description;
  const Json* parameters = fields.object(parameters_name);
  schema["parameters"] = parameters != nullptr
                             ? *parameters
                             : Json{{"type", "object"}, {"properties", Json::object()}};
  tool.schema.json = dump(schema);
  tool.wire_name = tool.name;
  tool.is_strict = fields.flag("strict").value_or(false);
  tool.where = fields.path_of(parameters_name);
  return tool;
}

std::string read_text_content(const Json& content,
                              const std::string& where,
                              std::initializer_list<std::string_view> text_types) {
  if (content.is_null()) return {};
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) refuse_field(where, "expected text or a list of parts");
  std::string joined;
  std::size_t index = 0;
  for (const Json& part : content) {
    const std::string place = fmt::format("{}[{}]", where, index++);
    const Fields fields(part, place);
    const std::string type = fields.text("type").value_or("text");
    if (std::find(text_types.begin(), text_types.end(), type) == text_types.end()) {
      const bool media = type.find("image") != std::string::npos ||
                         type.find("audio") != std::string::npos ||
                         type.find("file") != std::string::npos || type == "document" ||
                         type.find("video") != std::string::npos;
      refuse_field(place + ".type",
                   media ? std::string(kNoImages)
                         : fmt::format("content of type \"{}\" is not supported", type));
    }
    const std::string text =
        type == "refusal" ? fields.text("refusal").value_or("") : fields.text("text").value_or("");
    if (!joined.empty() && !text.empty()) joined += "\n\n";
    joined += text;
  }
  return joined;
}

chat::Role read_role(const Fields& message) {
  const std::string role = message.text("role").value_or("");
  if (role == "system" || role == "developer") return chat::Role::kSystem;
  if (role == "user") return chat::Role::kUser;
  if (role == "assistant") return chat::Role::kAssistant;
  refuse_field(message.path_of("role"), fmt::format("\"{}\" is no role", role));
}

void add_system(std::string text, Ask& ask, std::vector<std::string>& system_texts) {
  if (ask.messages.empty()) {
    system_texts.push_back(std::move(text));
  } else {
    ask.messages.push_back(chat::system_message(std::move(text)));
  }
}

void place_system(Ask& ask, const std::vector<std::string>& system_texts) {
  if (ask.tools.size() > kToolsMax)
    refuse_field("tools", fmt::format("at most {} tools", kToolsMax));
  std::vector<chat::Message> placed;
  if (!ask.tools.empty()) {
    chat::Message offer = chat::system_message("");
    for (const OfferedTool& tool : ask.tools)
      offer.tools.push_back(tool.schema);
    placed.push_back(std::move(offer));
  }
  std::string joined;
  for (const std::string& text : system_texts) {
    if (text.empty()) continue;
    if (!joined.empty()) joined += "\n\n";
    joined += text;
  }
  if (!placed.empty() && !joined.empty()) joined = "\n\n" + joined;
  if (!joined.empty()) placed.push_back(chat::system_message(std::move(joined)));
  if (ask.format.kind == FormatKind::kJsonSchema) {
    if (placed.empty()) placed.push_back(chat::system_message(""));
    placed.back().response_format = ask.format.schema;
  }
  for (chat::Message& message : ask.messages) {
    if (message.role == chat::Role::kSystem || message.role == chat::Role::kDeveloper)
      message.role = chat::Role::kUser;
    placed.push_back(std::move(message));
  }
  ask.messages = std::move(placed);
}

void drop_tools(Ask& ask) {
  ask.tools.clear();
  ask.tool_choice = ToolChoice::kNone;
}

void require_call(Ask& ask) {
  if (ask.tools.empty()) refuse_field("tool_choice", "a call is required but no tools are offered");
  ask.tool_choice = ToolChoice::kRequired;
}

void allow_tools(const std::vector<std::string>& names, Ask& ask) {
  for (OfferedTool& tool : ask.tools)
    tool.may_be_called = false;
  for (const std::string& name : names) {
    const auto tool = std::find_if(ask.tools.begin(), ask.tools.end(),
                                   [&](const OfferedTool& it) { return it.name == name; });
    if (tool == ask.tools.end())
      refuse_field("tool_choice", fmt::format("\"{}\" is not among the tools", name));
    tool->may_be_called = true;
  }
}

namespace {

// The name in {"type": "function", "name": N} or {"type": "function", "function": {"name": N}}.
std::string chosen_name(const Json& choice, const std::string& where) {
  const Fields fields(choice, where);
  const std::string type = fields.text("type").value_or("function");
  if (type != "function" && type != "custom")
    refuse_field(fields.path_of("type"), "expected function, custom or allowed_tools");
  const Json* inner = fields.object(type);
  const std::string name =
      (inner == nullptr ? fields : Fields(*inner, fields.path_of(type))).text("name").value_or("");
  return fields.text("namespace").value_or("") + name;
}

void read_allowed_tools(const Fields& choice, Ask& ask) {
  const Json* inner = choice.object("allowed_tools");
  const Fields allowed = inner == nullptr ? choice : Fields(*inner, "tool_choice.allowed_tools");
  const Json* tools = allowed.list("tools");
  if (tools == nullptr || tools->empty())
    refuse_field(allowed.path_of("tools"), "is missing or empty");
  std::vector<std::string> names;
  for (const Json& tool : *tools)
    names.push_back(chosen_name(tool, allowed.path_of("tools")));
  allow_tools(names, ask);
  const std::string mode = allowed.text("mode").value_or("auto");
  if (mode == "required") {
    require_call(ask);
  } else if (mode != "auto") {
    refuse_field(allowed.path_of("mode"), "expected auto or required");
  }
}

}  // namespace

void read_tool_choice(const Fields& body, Ask& ask) {
  ask.one_call_at_most = !body.flag("parallel_tool_calls").value_or(true);
  const Json* choice = body.find("tool_choice");
  if (choice == nullptr || *choice == "auto") return;
  if (choice->is_object()) {
    const Fields fields(*choice, "tool_choice");
    if (fields.text("type").value_or("") == "allowed_tools") return read_allowed_tools(fields, ask);
    allow_tools({chosen_name(*choice, "tool_choice")}, ask);
    require_call(ask);
  } else if (*choice == "none") {
    drop_tools(ask);
  } else if (*choice == "required") {
    require_call(ask);
  } else {
    refuse_field("tool_choice", "expected none, auto, required or a tool");
  }
}

OutputFormat read_format(const Json& format, const std::string& where, SchemaPlace place) {
  const Fields fields(format, where);
  const std::string type = fields.text("type").value_or("");
  if (type == "text") return {};
  if (type == "json_object") return {.kind = FormatKind::kJsonObject, .schema = {}, .where = where};
  if (type != "json_schema")
    refuse_field(fields.path_of("type"), "expected text, json_object or json_schema");
  const Json* holder = place == SchemaPlace::kMember ? fields.object("json_schema") : &format;
  if (holder == nullptr) refuse_field(fields.path_of("json_schema"), "is missing");
  const Fields inner(*holder,
                     place == SchemaPlace::kMember ? fields.path_of("json_schema") : where);
  const Json* schema = inner.object("schema");
  if (schema == nullptr) refuse_field(inner.path_of("schema"), "is missing");
  return {
      .kind = FormatKind::kJsonSchema, .schema = dump(*schema), .where = inner.path_of("schema")};
}

}  // namespace ds4::server
