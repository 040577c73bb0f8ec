#pragma once
#include <span>
#include <string>
#include <vector>

#include "chat/effort.h"
#include "chat/message.h"
#include "chat/render.h"

namespace ds4::chat {

// One turn of a conversation after the official encoder's first passes: tool results have become
// parts of user turns, runs of user and tool messages one turn.  Borrows from the messages.
struct Turn {
  Role role = Role::kUser;  // never kTool
  const Message* message = nullptr;
  std::vector<std::string> parts;  // user: the texts and tool results, joined by a blank line
  std::optional<Task> task;
  bool keeps_reasoning = true;
};

// Merges and orders `messages`: results follow the order of the calls they answer.  Linear.
// Throws Error(kInvalidArgument) as render() does.
std::vector<Turn> merge_turns(std::span<const Message> messages);

// The place of the last user or developer turn, or turns.size().
std::size_t last_user_turn(const std::vector<Turn>& turns);

}  // namespace ds4::chat
