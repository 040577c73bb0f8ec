#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/log.h"

namespace ds4::app {

// What a stream leads to, found out once at start.
struct Terminal {
  bool is_tty = false;
  bool has_colour = false;  // a tty, TERM is not "dumb" and NO_COLOR is not set

  // For a file descriptor and the environment's variables (null: not set).
  static Terminal of(int descriptor, const char* no_colour, const char* term);
  static Terminal standard_output();
  static Terminal standard_error();
};

enum class Style {
  kProgress,   // prefill and timing
  kGood,       // generation
  kReasoning,  // dim
  kWarning,
  kError,
};

// The escape sequence that turns a style on, and the one that ends any.
std::string_view style_on(Style style);
inline constexpr std::string_view kStyleOff = "\x1b[0m";

// `text` in a style where the terminal has colour, else as it is.
std::string paint(const Terminal& terminal, Style style, std::string_view text);

// A sink that writes warnings and errors, and with `verbose` everything, to standard error.
enum class Verbosity { kNormal, kVerbose };
LogSink log_to_standard_error(const Terminal& terminal, Verbosity verbosity);

// Progress over a known number of tokens on standard error: on a tty one line that is rewritten,
// elsewhere one line an update.  Confined to one thread.
class ProgressLine {
 public:
  ProgressLine(const Terminal& terminal, std::string label);
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { clear(); }
  void update(std::uint64_t done, std::uint64_t total);
  // Takes the line away, so that what follows starts at the left edge.
  void clear();

  // "prefill [#####.....]  512/1024 (50%)".
  static std::string text(std::string_view label, std::uint64_t done, std::uint64_t total);

 private:
  Terminal terminal_;
  std::string label_;
  bool shown_ = false;
};

}  // namespace ds4::app
