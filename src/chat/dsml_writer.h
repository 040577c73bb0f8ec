#pragma once
#include <span>
#include <string>
#include <string_view>

#include "chat/message.h"
#include "tokenizer/segment.h"

namespace ds4::chat {

// Appends tool calls in the official form, from "<｜DSML｜tool_calls>" to its closing tag.  Names
// and values are text; the DSML markers are control segments.  String values are written as they
// are, except that an embedded DSML tag is escaped; other values as JSON.
void write_tool_calls(tokenizer::RenderedPrompt& prompt, std::span<const ToolCall> calls);
// The same as text.
std::string tool_calls_text(std::span<const ToolCall> calls);

// Appends trusted text in which every DSML marker becomes a control segment.
void write_trusted_dsml(tokenizer::RenderedPrompt& prompt, std::string_view text);

}  // namespace ds4::chat
