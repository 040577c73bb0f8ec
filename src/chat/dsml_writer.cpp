#include "chat/dsml_writer.h"

#include "chat/escape.h"
#include "chat/python_json.h"
#include "tokenizer/markers.h"

namespace ds4::chat {
namespace {

using tokenizer::RenderedPrompt;

void open_tag(RenderedPrompt& prompt, std::string_view before_marker, std::string_view after) {
  prompt.add_text(before_marker);
  prompt.add_control(tokenizer::kDsmlMarker);
  prompt.add_text(after);
}

void write_parameter(RenderedPrompt& prompt, const JsonMember& member) {
  open_tag(prompt, "<", "parameter name=\"");
  prompt.add_text(escape_attribute(member.key));
  prompt.add_text(member.is_string ? "\" string=\"true\">" : "\" string=\"false\">");
  prompt.add_text(member.is_string ? escape_payload(member.value)
                                   : escape_json_payload(member.value));
  open_tag(prompt, "</", "parameter>");
}

void write_call(RenderedPrompt& prompt, const ToolCall& call) {
  open_tag(prompt, "<", "invoke name=\"");
  prompt.add_text(escape_attribute(call.name));
  prompt.add_text("\">\n");
  auto members = split_object(call.arguments);
  if (!members) members = {{"arguments", true, call.arguments}};
  bool is_first = true;
  for (const JsonMember& member : *members) {
    if (!is_first) prompt.add_text("\n");
    is_first = false;
    write_parameter(prompt, member);
  }
  open_tag(prompt, "\n</", "invoke>");
}

}  // namespace

void write_tool_calls(RenderedPrompt& prompt, std::span<const ToolCall> calls) {
  open_tag(prompt, "<", "tool_calls>\n");
  bool is_first = true;
  for (const ToolCall& call : calls) {
    if (!is_first) prompt.add_text("\n");
    is_first = false;
    write_call(prompt, call);
  }
  open_tag(prompt, "\n</", "tool_calls>");
}

std::string tool_calls_text(std::span<const ToolCall> calls) {
  RenderedPrompt prompt;
  write_tool_calls(prompt, calls);
  return prompt.text();
}

void write_trusted_dsml(RenderedPrompt& prompt, std::string_view text) {
  constexpr std::string_view kMarker = tokenizer::kDsmlMarker;
  for (std::size_t at = text.find(kMarker); at != std::string_view::npos; at = text.find(kMarker)) {
    prompt.add_text(text.substr(0, at));
    prompt.add_control(kMarker);
    text.remove_prefix(at + kMarker.size());
  }
  prompt.add_text(text);
}

}  // namespace ds4::chat
