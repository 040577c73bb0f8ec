#include "prefix_turns.h"

#include <optional>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::app {

namespace {

constexpr std::string_view kUser = "USER:";
constexpr std::string_view kAssistant = "ASSISTANT:";

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

class PrefixParser {
 public:
  explicit PrefixParser(std::string_view name) : name_(name) {}

  void line(std::string_view line) {
    ++line_number_;
    if (starts_with(line, kUser)) {
      if (reading_user_) fail("USER: follows USER:");
      store();
      turns_.emplace_back();
      open(line.substr(kUser.size()), &turns_.back().user);
      reading_user_ = true;
    } else if (starts_with(line, kAssistant)) {
      if (!reading_user_) fail("ASSISTANT: does not follow USER:");
      store();
      open(line.substr(kAssistant.size()), &turns_.back().assistant);
      reading_user_ = false;
    } else if (target_ != nullptr) {
      text_ += fmt::format("\n{}", line);
    } else if (!trim(line).empty()) {
      fail("text before the first USER:");
    }
  }

  std::vector<PrefixTurn> finish() {
    if (turns_.empty()) fail("no USER: line");
    if (reading_user_) fail("the last turn has no ASSISTANT:");
    store();
    return std::move(turns_);
  }

 private:
  [[noreturn]] void fail(std::string_view reason) const {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("{}, line {}: {}; expected USER: and ASSISTANT: in turn", name_,
                            line_number_, reason));
  }
  void open(std::string_view rest, std::string* target) {
    text_ = rest;
    target_ = target;
  }
  void store() {
    if (target_ != nullptr) *target_ = trim(text_);
    target_ = nullptr;
  }

  std::string_view name_;
  std::size_t line_number_ = 0;
  std::vector<PrefixTurn> turns_;
  bool reading_user_ = false;
  std::string text_;
  std::string* target_ = nullptr;  // of the text being read; turns_ does not grow meanwhile
};

}  // namespace

std::vector<PrefixTurn> parse_prefix_turns(std::string_view text, std::string_view name) {
  PrefixParser parser(name);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    parser.line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parser.finish();
}

}  // namespace ds4::app
