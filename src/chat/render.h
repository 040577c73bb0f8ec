#pragma once
#include <span>
#include <string>
#include <string_view>

#include "chat/effort.h"
#include "chat/message.h"
#include "tokenizer/segment.h"

namespace ds4::chat {

using tokenizer::RenderedPrompt;

enum class ReasoningHistory {
  kDropOld,  // the official default: only turns after the last user message keep their reasoning,
             // unless some message offers tools, which keeps all of it
  kKeepAll,
};

struct RenderOptions {
  ThinkMode think = ThinkMode::kHigh;
  EffortLadder ladder = EffortLadder::kApril2026;
  ReasoningHistory history = ReasoningHistory::kDropOld;
};

// A conversation as DeepSeek's official encoder writes it, byte for byte, ready for generation:
// when the last message is the user's it ends with the assistant's opener.  Text from messages is
// text; only the markers placed here are control segments, the DSML markers of rendered tool calls
// among them.  One deviation, so that no text can be taken for markup: a literal closing tag inside
// a string argument or a tool result is escaped (docs/protocols/dsml.md).
// Linear in the conversation.  Throws Error(kInvalidArgument), naming the message, for content that
// is missing or a tool result without a conversation before it.
RenderedPrompt render(std::span<const Message> messages, const RenderOptions& options);

// Where a live transcript stands before the next turn is appended.
enum class TranscriptEnd {
  kTurnClosed,   // the assistant's EOS is the last token
  kInAnswer,     // the answer was cut: EOS is added
  kInReasoning,  // the reasoning was cut: </think> and EOS are added
};

// What to append to a live token transcript for the next turn: the end of the assistant's turn if
// it is missing, `messages` (user, tool, system, developer or latest_reminder), and the assistant's
// opener.  Never begins with BOS; an effort prefix stands at the front of the transcript alone, so
// changing to or from a mode with one needs render() anew.
RenderedPrompt render_continuation(std::span<const Message> messages,
                                   const RenderOptions& options,
                                   TranscriptEnd end);

// The official tools block, with the preceding blank line left out.
void add_tools_block(RenderedPrompt& prompt, std::span<const ToolSchema> tools);

}  // namespace ds4::chat
