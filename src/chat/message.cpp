#include "chat/message.h"

#include <utility>

namespace ds4::chat {
namespace {

constexpr Role kRoles[] = {Role::kSystem, Role::kUser,      Role::kAssistant,
                           Role::kTool,   Role::kDeveloper, Role::kLatestReminder};
constexpr Task kTasks[] = {Task::kAction, Task::kQuery, Task::kAuthority,
                           Task::kDomain, Task::kTitle, Task::kReadUrl};

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kTool:
      return "tool";
    case Role::kDeveloper:
      return "developer";
    case Role::kLatestReminder:
      return "latest_reminder";
  }
  return "";
}

std::string_view task_name(Task task) {
  switch (task) {
    case Task::kAction:
      return "action";
    case Task::kQuery:
      return "query";
    case Task::kAuthority:
      return "authority";
    case Task::kDomain:
      return "domain";
    case Task::kTitle:
      return "title";
    case Task::kReadUrl:
      return "read_url";
  }
  return "";
}

std::optional<Role> find_role(std::string_view name) {
  for (const Role role : kRoles) {
    if (role_name(role) == name) return role;
  }
  return std::nullopt;
}

std::optional<Task> find_task(std::string_view name) {
  for (const Task task : kTasks) {
    if (task_name(task) == name) return task;
  }
  return std::nullopt;
}

Message system_message(std::string content) {
  Message message;
  message.role = Role::kSystem;
  message.content = std::move(content);
  return message;
}

Message user_message(std::string content) {
  Message message;
  message.content = std::move(content);
  return message;
}

Message assistant_message(std::string content, std::string reasoning) {
  Message message;
  message.role = Role::kAssistant;
  message.content = std::move(content);
  message.reasoning = std::move(reasoning);
  return message;
}

Message tool_message(std::string tool_call_id, std::string content) {
  Message message;
  message.role = Role::kTool;
  message.content = std::move(content);
  message.tool_call_id = std::move(tool_call_id);
  return message;
}

}  // namespace ds4::chat
