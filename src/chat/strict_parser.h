#pragma once
#include <string_view>

#include "chat/message.h"

namespace ds4::chat {

// Parses a finished response exactly as DeepSeek's official parser does: `text` includes the final
// EOS marker and, when `mode` is kThinking, begins inside the reasoning.  The result has content,
// reasoning and tool calls, whose arguments are joined unchecked.  Anything irregular throws
// Error(kBadFormat).  For tests and for judging generated data; what a model writes live goes
// through ResponseParser.
enum class StrictMode { kChat, kThinking };
Message parse_strictly(std::string_view text, StrictMode mode);

}  // namespace ds4::chat
