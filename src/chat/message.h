#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ds4::chat {

enum class Role { kSystem, kUser, kAssistant, kTool, kDeveloper, kLatestReminder };

// The official one-token tasks; the marker of a task follows the message that carries it.
enum class Task { kAction, kQuery, kAuthority, kDomain, kTitle, kReadUrl };

// E.g. "latest_reminder", "read_url".
std::string_view role_name(Role role);
std::string_view task_name(Task task);
std::optional<Role> find_role(std::string_view name);
std::optional<Task> find_task(std::string_view name);

// A function that the model may call.
struct ToolSchema {
  std::string json;  // one JSON object: name, description, parameters; shown in this key order
};

struct ToolCall {
  std::string id;  // the client's; orders results, never shown to the model
  std::string name;
  std::string arguments;  // JSON object text; anything else is shown as one string, `arguments`
};

enum class BlockKind {
  kText,
  kToolResult,
  kOther,  // shown as "[Unsupported TYPE]"
};

// A part of a message whose content is a list.
struct ContentBlock {
  BlockKind kind = BlockKind::kText;
  std::string text;          // kText, kToolResult
  std::string tool_call_id;  // kToolResult: the call that it answers
  std::string type;          // kOther: its name
};

// One message of a conversation, as clients send it.  Plain data.
struct Message {
  Role role = Role::kUser;
  std::optional<std::string> content;          // absent: null, which only an assistant may send
  std::vector<ContentBlock> blocks;            // when not empty, used instead of `content`
  std::string reasoning;                       // assistant: what stood between the think markers
  std::vector<ToolCall> tool_calls;            // assistant
  std::string tool_call_id;                    // tool: the call that `content` answers
  std::vector<ToolSchema> tools;               // system, developer: the functions on offer
  std::optional<std::string> response_format;  // system, developer: a JSON schema to reply in
  std::optional<Task> task;
  bool without_eos = false;  // assistant: the turn is unfinished and generation continues it
  // Assistant: the exact bytes of the tool-call block as the model once wrote them, the blank line
  // before it included; used instead of `tool_calls`.  Trusted: from our own memory, never from a
  // client.
  std::string exact_tool_block;
};

// A short way to the common kinds.
Message system_message(std::string content);
Message user_message(std::string content);
Message assistant_message(std::string content, std::string reasoning = {});
Message tool_message(std::string tool_call_id, std::string content);

}  // namespace ds4::chat
