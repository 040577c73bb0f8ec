#pragma once
#include <filesystem>
#include <memory>
#include <string>

namespace ds4::app {

enum class LineKind {
  kText,       // a line, possibly empty, possibly of several lines
  kInterrupt,  // Ctrl-C: what was typed is gone
  kEnd,        // Ctrl-D or the end of the input
};

struct Line {
  LineKind kind = LineKind::kEnd;
  std::string text;  // without the final line break
};

// Where a chat's lines come from.  Confined to one thread.
class LineReader {
 public:
  LineReader() = default;
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;
  virtual ~LineReader() = default;
  // Waits for the next line.  A line that ends in a backslash goes on in the next one.
  virtual Line read() = 0;
};

// Lines of standard input as they are, without a prompt: for pipes and files.
std::unique_ptr<LineReader> make_pipe_reader();

// An editor with a prompt and a history of 512 lines kept in `history_file` (empty: not kept),
// which is written after each line.  Pasted text is taken as text, line breaks included.
std::unique_ptr<LineReader> make_line_editor(const std::string& prompt,
                                             const std::filesystem::path& history_file);

}  // namespace ds4::app
