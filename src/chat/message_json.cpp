#include "chat/message_json.h"

#include <cstddef>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "chat/python_json.h"

namespace ds4::chat {
namespace {

using Json = nlohmann::ordered_json;

// Key order matters to the model, so objects keep it, and looking up a key takes time in the number
// of keys: this bounds it.
constexpr std::size_t kObjectKeysMax = 4096;
constexpr std::size_t kMessagesMax = 1u << 20;

[[noreturn]] void fail(const std::string& problem) {
  throw Error(ErrorCode::kInvalidArgument, problem);
}

// Counts nesting and keys without building anything.
class LimitChecker {
 public:
  bool null() { return true; }
  bool boolean(bool /*value*/) { return true; }
  bool number_integer(std::int64_t /*value*/) { return true; }
  bool number_unsigned(std::uint64_t /*value*/) { return true; }
  bool number_float(double /*value*/, const std::string& /*text*/) { return true; }
  bool string(std::string& /*value*/) { return true; }
  bool binary(std::vector<std::uint8_t>& /*value*/) { return false; }
  bool start_object(std::size_t /*count*/) { return start(); }
  bool start_array(std::size_t /*count*/) { return start(); }
  bool end_object() { return end(); }
  bool end_array() { return end(); }
  bool key(std::string& /*name*/) {
    if (++keys_.back() <= kObjectKeysMax) return true;
    problem_ = fmt::format("an object has more than {} keys", kObjectKeysMax);
    return false;
  }
  bool parse_error(std::size_t /*at*/, const std::string& /*token*/, const std::exception& e) {
    problem_ = e.what();
    return false;
  }
  const std::string& problem() const { return problem_; }

 private:
  bool start() {
    keys_.push_back(0);
    if (keys_.size() <= kJsonDepthMax) return true;
    problem_ = fmt::format("it is nested more than {} levels deep", kJsonDepthMax);
    return false;
  }
  bool end() {
    keys_.pop_back();
    return true;
  }
  std::vector<std::size_t> keys_;
  std::string problem_;
};

Json parse_limited(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) fail("the conversation contains a NUL byte");
  LimitChecker checker;
  if (!Json::sax_parse(text, &checker)) {
    fail("the conversation is not usable JSON: " + checker.problem());
  }
  return Json::parse(text);
}

// Reads the fields of one message; `where` names it in messages.
class MessageReader {
 public:
  MessageReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json_.is_object()) fail(where_ + " is not an object");
  }

  Message read() {
    Message message;
    const auto role = find_role(text("role"));
    if (!role) fail(fmt::format("{}: unknown role '{}'", where_, text("role")));
    message.role = *role;
    read_content(message);
    message.reasoning = text("reasoning_content");
    message.tool_call_id = text("tool_call_id");
    for (const Json* call : list("tool_calls"))
      message.tool_calls.push_back(read_call(*call));
    for (const Json* tool : list("tools"))
      message.tools.push_back(read_tool(*tool));
    if (const Json* format = field("response_format")) message.response_format = format->dump();
    read_task(message);
    if (const Json* flag = field("wo_eos")) {
      if (!flag->is_boolean()) fail(where_ + ": wo_eos is not true or false");
      message.without_eos = flag->get<bool>();
    }
    return message;
  }

  ToolSchema read_tool(const Json& tool) const {
    const Json* function = &tool;
    if (tool.is_object() && tool.contains("function")) function = &tool.at("function");
    if (!function->is_object()) fail(where_ + ": a tool is not an object");
    return {function->dump()};
  }

 private:
  // Null counts as absent.
  const Json* field(const char* name) const {
    const auto place = json_.find(name);
    return place == json_.end() || place->is_null() ? nullptr : &*place;
  }

  std::string text(const char* name) const {
    const Json* value = field(name);
    if (value == nullptr) return {};
    if (!value->is_string()) fail(fmt::format("{}: {} is not text", where_, name));
    return value->get<std::string>();
  }

  std::vector<const Json*> list(const char* name) const {
    std::vector<const Json*> elements;
    const Json* value = field(name);
    if (value == nullptr) return elements;
    if (!value->is_array()) fail(fmt::format("{}: {} is not a list", where_, name));
    for (const Json& element : *value)
      elements.push_back(&element);
    return elements;
  }

  void read_content(Message& message) const {
    if (const Json* blocks = field("content_blocks")) {
      read_blocks(*blocks, message);
      return;
    }
    const Json* content = field("content");
    if (content == nullptr) return;
    if (content->is_string()) {
      message.content = content->get<std::string>();
    } else {
      read_blocks(*content, message);
      if (message.blocks.empty()) message.content = "";
    }
  }

  void read_blocks(const Json& blocks, Message& message) const {
    if (!blocks.is_array()) fail(where_ + ": content is neither text nor a list");
    for (const Json& json : blocks) {
      const MessageReader block(json, where_ + ", content block");
      message.blocks.push_back(block.read_block());
    }
  }

  ContentBlock read_block() const {
    ContentBlock block;
    block.type = text("type");
    if (block.type == "text") {
      block.text = text("text");
    } else if (block.type == "tool_result") {
      block.kind = BlockKind::kToolResult;
      block.tool_call_id = text(field("tool_use_id") != nullptr ? "tool_use_id" : "tool_call_id");
      block.text = nested_content();
    } else {
      block.kind = BlockKind::kOther;
    }
    return block;
  }

  // A tool result's content: text, or blocks joined as the official encoder joins them.
  std::string nested_content() const {
    const Json* content = field("content");
    if (content == nullptr || content->is_string()) return text("content");
    Message inner;
    read_blocks(*content, inner);
    std::string joined;
    for (const ContentBlock& block : inner.blocks) {
      if (&block != inner.blocks.data()) joined += "\n\n";
      joined += block.kind == BlockKind::kText ? block.text : "[Unsupported " + block.type + "]";
    }
    return joined;
  }

  ToolCall read_call(const Json& json) const {
    const MessageReader call(json, where_ + ", tool call");
    const Json* function = call.field("function");
    const MessageReader body(function != nullptr ? *function : json, where_ + ", tool call");
    ToolCall result;
    result.id = call.text("id");
    result.name = body.text("name");
    const Json* arguments = body.field("arguments");
    if (arguments == nullptr) {
      result.arguments = "{}";
    } else {
      result.arguments = arguments->is_string() ? arguments->get<std::string>() : arguments->dump();
    }
    return result;
  }

  void read_task(Message& message) const {
    const std::string name = text("task");
    if (name.empty()) return;
    message.task = find_task(name);
    if (!message.task) fail(fmt::format("{}: unknown task '{}'", where_, name));
  }

  const Json& json_;
  std::string where_;
};

// Our own strings may hold bytes that are no UTF-8; they must not make writing fail.
std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json block_to_json(const ContentBlock& block) {
  switch (block.kind) {
    case BlockKind::kText:
      return {{"type", "text"}, {"text", block.text}};
    case BlockKind::kToolResult:
      return {
          {"type", "tool_result"}, {"tool_use_id", block.tool_call_id}, {"content", block.text}};
    case BlockKind::kOther:
      return {{"type", block.type}};
  }
  return {};
}

Json message_to_json(const Message& message) {
  Json json = {{"role", role_name(message.role)}};
  if (!message.blocks.empty()) {
    json["content"] = Json::array();
    for (const ContentBlock& block : message.blocks) {
      json["content"].push_back(block_to_json(block));
    }
  } else if (message.content) {
    json["content"] = *message.content;
  } else {
    json["content"] = nullptr;
  }
  if (!message.reasoning.empty()) json["reasoning_content"] = message.reasoning;
  for (const ToolCall& call : message.tool_calls) {
    json["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  if (!message.tool_call_id.empty()) json["tool_call_id"] = message.tool_call_id;
  for (const ToolSchema& tool : message.tools) {
    json["tools"].push_back(
        {{"type", "function"}, {"function", Json::parse(tool.json, nullptr, false)}});
  }
  if (message.response_format) {
    json["response_format"] = Json::parse(*message.response_format, nullptr, false);
  }
  if (message.task) json["task"] = task_name(*message.task);
  if (message.without_eos) json["wo_eos"] = true;
  return json;
}

}  // namespace

std::vector<Message> parse_messages(std::string_view json) {
  const Json root = parse_limited(json);
  const Json* list = &root;
  if (root.is_object() && root.contains("messages")) list = &root.at("messages");
  if (!list->is_array()) fail("the conversation is not a list of messages");
  if (list->size() > kMessagesMax) {
    fail(fmt::format("the conversation has more than {} messages", kMessagesMax));
  }
  std::vector<Message> messages;
  messages.reserve(list->size());
  for (const Json& message : *list) {
    messages.push_back(MessageReader(message, fmt::format("message {}", messages.size())).read());
  }
  if (root.is_object() && root.contains("tools")) {
    const Json& tools = root.at("tools");
    if (!tools.is_array()) fail("tools is not a list");
    if (messages.empty() && !tools.empty()) fail("there are tools but no message");
    for (const Json& tool : tools) {
      messages.front().tools.push_back(MessageReader(root, "the request").read_tool(tool));
    }
  }
  return messages;
}

std::string messages_to_json(std::span<const Message> messages) {
  Json list = Json::array();
  for (const Message& message : messages)
    list.push_back(message_to_json(message));
  return dumped(list);
}

}  // namespace ds4::chat
