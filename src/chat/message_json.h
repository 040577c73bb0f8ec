#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chat/message.h"

namespace ds4::chat {

// Reads a conversation from JSON: a list of messages, or an object with `messages` and, optionally,
// `tools` for the first of them.  The field names are those of DeepSeek's encoder and of the chat
// completions protocol: role, content (text, null or a list of blocks), reasoning_content,
// tool_calls, tool_call_id, tools, response_format, task, wo_eos.  Throws Error(kInvalidArgument),
// naming message and field, for anything else, and for nesting or counts beyond all use.
std::vector<Message> parse_messages(std::string_view json);

// The reverse: a list of messages that parse_messages() reads back to the same.
std::string messages_to_json(std::span<const Message> messages);

}  // namespace ds4::chat
