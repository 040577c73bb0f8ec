#include "chat/strict_parser.h"

#include <algorithm>
#include <set>
#include <string>

#include <fmt/format.h>

#include "base/error.h"
#include "chat/python_json.h"
#include "tokenizer/markers.h"

namespace ds4::chat {
namespace {

constexpr std::string_view kBlockStart = "\n\n<｜DSML｜tool_calls";
constexpr std::string_view kInvokeOpen = "<｜DSML｜invoke";
constexpr std::string_view kInvokeClose = "</｜DSML｜invoke>";
constexpr std::string_view kParameterOpen = "<｜DSML｜parameter";
constexpr std::string_view kParameterClose = "</｜DSML｜parameter>";
constexpr std::string_view kBlockClose = "</｜DSML｜tool_calls>";

[[noreturn]] void fail(const std::string& problem) {
  throw Error(ErrorCode::kBadFormat, problem);
}

// Takes `literal` off the front of `text`, or returns false.
bool take(std::string_view& text, std::string_view literal) {
  if (text.substr(0, literal.size()) != literal) return false;
  text.remove_prefix(literal.size());
  return true;
}

void expect(std::string_view& text, std::string_view literal, std::string_view where) {
  if (!take(text, literal)) fail(fmt::format("expected '{}' in {}", literal, where));
}

// Takes everything up to `literal`, and `literal` itself.
std::string_view take_until(std::string_view& text, std::string_view literal) {
  const std::size_t at = text.find(literal);
  if (at == std::string_view::npos) fail(fmt::format("missing '{}'", literal));
  const std::string_view before = text.substr(0, at);
  text.remove_prefix(at + literal.size());
  return before;
}

void skip_line_breaks(std::string_view& text) {
  while (take(text, "\n")) {
  }
}

// One parameter, appended to the JSON object that is being written.
void read_parameter(std::string_view& text, std::string& arguments, std::set<std::string>& names) {
  expect(text, " name=\"", "a parameter");
  const std::string name(take_until(text, "\""));
  expect(text, " string=\"", "a parameter");
  const std::string_view flag = take_until(text, "\">");
  if (flag != "true" && flag != "false") fail(fmt::format("parameter format: string=\"{}\"", flag));
  const std::string_view value = take_until(text, kParameterClose);
  if (!names.insert(name).second) fail(fmt::format("duplicate parameter name '{}'", name));
  if (!arguments.empty()) arguments += ", ";
  arguments += json_quote(name) + ": ";
  arguments += flag == "true" ? json_quote(value) : std::string(value);
}

ToolCall read_call(std::string_view& text) {
  ToolCall call;
  expect(text, " name=\"", "an invoke");
  call.name = take_until(text, "\">\n");
  std::string arguments;
  std::set<std::string> names;
  for (skip_line_breaks(text); take(text, kParameterOpen); skip_line_breaks(text)) {
    read_parameter(text, arguments, names);
  }
  expect(text, kInvokeClose, "an invoke");
  call.arguments = "{" + arguments + "}";
  return call;
}

// What follows kBlockStart, up to the closing tag.
std::vector<ToolCall> read_calls(std::string_view& text) {
  expect(text, ">\n", "the opening of the tool calls");
  std::vector<ToolCall> calls;
  for (skip_line_breaks(text); take(text, kInvokeOpen); skip_line_breaks(text)) {
    calls.push_back(read_call(text));
  }
  expect(text, kBlockClose, "the tool calls");
  return calls;
}

void check_no_markers(std::string_view text, std::string_view where) {
  for (const std::string_view marker :
       {tokenizer::kBosMarker, tokenizer::kEosMarker, tokenizer::kThinkMarker,
        tokenizer::kThinkEndMarker, tokenizer::kDsmlMarker}) {
    if (text.find(marker) != std::string_view::npos) {
      fail(fmt::format("unexpected special token '{}' in {}", marker, where));
    }
  }
}

}  // namespace

Message parse_strictly(std::string_view text, StrictMode mode) {
  Message message;
  message.role = Role::kAssistant;
  if (mode == StrictMode::kThinking) {
    const std::size_t end = text.find(tokenizer::kThinkEndMarker);
    const std::size_t block = text.find(kBlockStart);
    if (end == std::string_view::npos || block < end) fail("the reasoning is not closed");
    message.reasoning = text.substr(0, end);
    text.remove_prefix(end + tokenizer::kThinkEndMarker.size());
  }
  const std::size_t end = text.find(tokenizer::kEosMarker);
  const std::size_t block = text.find(kBlockStart);
  if (std::min(end, block) == std::string_view::npos) fail("the final EOS is missing");
  message.content = std::string(text.substr(0, std::min(end, block)));
  text.remove_prefix(std::min(end, block));
  if (take(text, kBlockStart)) message.tool_calls = read_calls(text);
  if (text != tokenizer::kEosMarker) fail("unexpected text behind the answer");
  check_no_markers(*message.content, "the content");
  check_no_markers(message.reasoning, "the reasoning");
  return message;
}

}  // namespace ds4::chat
