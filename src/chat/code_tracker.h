#pragma once
#include <cstdint>
#include <string_view>

namespace ds4::chat {

// Follows Markdown text to know where something is quoted: inside a fence, inside backticks on one
// line, or on a line that begins with '>'.  Markup there is quoted, not meant.  Confined to one
// thread.
class CodeTracker {
 public:
  // Follows one more character (a code point).
  void push(std::uint32_t c);

  // Whether the next character, if it is not a backtick, stands inside code or a quoted line.
  bool in_code() const;
  // Whether a quotation mark is the last thing on this line but spaces.
  bool after_quote() const { return after_quote_; }
  // Whether this line has nothing but spaces so far.
  bool at_line_start() const { return line_is_blank_ && run_ == 0; }

  // A new start: what came before was no text.
  void reset() { *this = CodeTracker(); }

 private:
  void end_run();
  void end_line();

  std::uint32_t run_char_ = 0;    // the fence character being repeated
  std::uint32_t run_ = 0;         // how often so far
  bool run_at_start_ = false;     // with nothing but spaces before it on its line
  std::uint32_t fence_char_ = 0;  // of the open fence, 0: none
  std::uint32_t fence_ = 0;       // its length
  bool fence_closes_ = false;     // a closing run was seen; the rest of the line must be blank
  std::uint32_t inline_ = 0;      // length of the run that opened inline code, 0: none
  bool line_is_blank_ = true;
  bool line_is_quoted_ = false;  // begins with '>'
  bool after_quote_ = false;
};

}  // namespace ds4::chat
