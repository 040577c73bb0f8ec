#pragma once
#include <functional>
#include <string_view>

namespace ds4 {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Where a library's messages go.  The caller that owns the terminal or the log file supplies one;
// an empty sink drops the message.  May be called from any thread that runs library code.
using LogSink = std::function<void(LogLevel level, std::string_view message)>;

// Calls `sink` when there is one.
inline void log(const LogSink& sink, LogLevel level, std::string_view message) {
  if (sink) sink(level, message);
}

}  // namespace ds4
