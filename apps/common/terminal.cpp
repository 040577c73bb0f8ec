#include "common/terminal.h"

#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "common/environment.h"
#include "common/output.h"

namespace ds4::app {

Terminal Terminal::of(int descriptor, const char* no_colour, const char* term) {
  Terminal terminal;
  terminal.is_tty = ::isatty(descriptor) == 1;
  const bool refused = no_colour != nullptr && *no_colour != '\0';
  const bool dumb = term == nullptr || std::string_view(term) == "dumb";
  terminal.has_colour = terminal.is_tty && !refused && !dumb;
  return terminal;
}

Terminal Terminal::standard_output() {
  return of(STDOUT_FILENO, environment("NO_COLOR"), environment("TERM"));
}

Terminal Terminal::standard_error() {
  return of(STDERR_FILENO, environment("NO_COLOR"), environment("TERM"));
}

std::string_view style_on(Style style) {
  switch (style) {
    case Style::kProgress:
      return "\x1b[36m";
    case Style::kGood:
      return "\x1b[32m";
    case Style::kReasoning:
      return "\x1b[90m";
    case Style::kWarning:
      return "\x1b[38;5;208m";
    case Style::kError:
      return "\x1b[31m";
  }
  DS4_CHECK(false);
  return "";
}

std::string paint(const Terminal& terminal, Style style, std::string_view text) {
  if (!terminal.has_colour) return std::string(text);
  return fmt::format("{}{}{}", style_on(style), text, kStyleOff);
}

LogSink log_to_standard_error(const Terminal& terminal, Verbosity verbosity) {
  return [terminal, verbosity](LogLevel level, std::string_view message) {
    if (level < LogLevel::kWarning && verbosity == Verbosity::kNormal) return;
    const std::string line = fmt::format("ds4: {}", message);
    const Style style = level == LogLevel::kError ? Style::kError : Style::kWarning;
    write_note((level < LogLevel::kWarning ? line : paint(terminal, style, line)) + "\n");
  };
}

ProgressLine::ProgressLine(const Terminal& terminal, std::string label)
    : terminal_(terminal),
      label_(std::move(label)) {}

std::string ProgressLine::text(std::string_view label, std::uint64_t done, std::uint64_t total) {
  constexpr std::uint64_t kBarCells = 20;
  const std::uint64_t cells = total == 0 ? kBarCells : kBarCells * done / total;
  const std::uint64_t percent = total == 0 ? 100 : 100 * done / total;
  return fmt::format("{} [{:#<{}}{:.<{}}] {}/{} ({}%)", label, "", cells, "", kBarCells - cells,
                     done, total, percent);
}

void ProgressLine::update(std::uint64_t done, std::uint64_t total) {
  const std::string line = paint(terminal_, Style::kProgress, text(label_, done, total));
  if (!terminal_.is_tty) return write_note(line + "\n");
  write_note("\r" + line + "\x1b[K");
  shown_ = true;
}

void ProgressLine::clear() {
  if (std::exchange(shown_, false)) write_note("\r\x1b[K");
}

}  // namespace ds4::app
