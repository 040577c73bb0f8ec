#include "chat/render.h"

#include <algorithm>

#include "base/error.h"
#include "chat/dsml_writer.h"
#include "chat/history.h"
#include "chat/python_json.h"
#include "tokenizer/markers.h"

namespace ds4::chat {
namespace {

// Protocol constants of the official encoder (MIT).  '@' stands for the DSML marker.
constexpr std::string_view kToolsBefore =
    "## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by "
    "writing a \"<@tool_calls>\" block like the following:\n\n"
    "<@tool_calls>\n"
    "<@invoke name=\"$TOOL_NAME\">\n"
    "<@parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</@parameter>\n"
    "...\n"
    "</@invoke>\n"
    "<@invoke name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</@invoke>\n"
    "</@tool_calls>\n\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other types "
    "(numbers, booleans, arrays, objects), pass the value in JSON format and set "
    "`string=\"false\"`.\n\n"
    "If thinking_mode is enabled (triggered by ";
constexpr std::string_view kToolsMiddle = "), you MUST output your complete reasoning inside ";
constexpr std::string_view kToolsRest =
    " BEFORE any tool calls or final response.\n\n"
    "Otherwise, output directly after ";
constexpr std::string_view kToolsSchemas =
    " with tool calls or final response.\n\n"
    "### Available Tool Schemas\n\n";
constexpr std::string_view kToolsAfter =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool "
    "calls.\n";
constexpr std::string_view kResponseFormat =
    "## Response Format:\n\n"
    "You MUST strictly adhere to the following schema to reply:\n";

void add_template(RenderedPrompt& prompt, std::string_view text) {
  for (std::size_t at = text.find('@'); at != std::string_view::npos; at = text.find('@')) {
    prompt.add_text(text.substr(0, at));
    prompt.add_control(tokenizer::kDsmlMarker);
    text.remove_prefix(at + 1);
  }
  prompt.add_text(text);
}

std::string checked_json(const std::string& json, std::string_view what) {
  if (auto text = python_json(json)) return std::move(*text);
  throw Error(ErrorCode::kInvalidArgument, std::string(what) + " is not valid JSON: " + json);
}

std::string_view task_marker(Task task) {
  switch (task) {
    case Task::kAction:
      return tokenizer::kActionMarker;
    case Task::kQuery:
      return tokenizer::kQueryMarker;
    case Task::kAuthority:
      return tokenizer::kAuthorityMarker;
    case Task::kDomain:
      return tokenizer::kDomainMarker;
    case Task::kTitle:
      return tokenizer::kTitleMarker;
    case Task::kReadUrl:
      return tokenizer::kReadUrlMarker;
  }
  return {};
}

std::string joined_content(const Message& message) {
  if (message.blocks.empty()) return message.content.value_or("");
  std::string joined;
  for (const ContentBlock& block : message.blocks) {
    if (&block != message.blocks.data()) joined += "\n\n";
    joined += block.kind == BlockKind::kOther ? "[Unsupported " + block.type + "]" : block.text;
  }
  return joined;
}

class Renderer {
 public:
  Renderer(std::span<const Message> messages, const RenderOptions& options)
      : think_(options.think),
        turns_(merge_turns(messages)),
        drops_(options.history == ReasoningHistory::kDropOld &&
               std::none_of(messages.begin(), messages.end(), [](const Message& m) {
                 return !m.tools.empty();
               })) {
    if (drops_ && is_thinking(think_)) drop_old_developers();
    last_user_ = last_user_turn(turns_);
  }

  void add_turns(RenderedPrompt& prompt) const {
    for (std::size_t i = 0; i < turns_.size(); ++i) {
      add_turn(prompt, i);
      add_transition(prompt, i);
    }
  }

 private:
  void drop_old_developers() {
    const std::size_t last = last_user_turn(turns_);
    std::size_t index = 0;
    std::erase_if(
        turns_, [&](const Turn& turn) { return index++ < last && turn.role == Role::kDeveloper; });
  }

  // Whether the assistant turn at `index`, or the one that an opener there begins, has reasoning.
  bool reasons(std::size_t index) const {
    return is_thinking(think_) && (!drops_ || last_user_ == turns_.size() || index >= last_user_);
  }

  void add_turn(RenderedPrompt& prompt, std::size_t index) const {
    const Turn& turn = turns_[index];
    switch (turn.role) {
      case Role::kSystem:
        prompt.add_text(joined_content(*turn.message));
        add_extras(prompt, *turn.message);
        break;
      case Role::kDeveloper:
        prompt.add_control(tokenizer::kUserMarker);
        prompt.add_text(joined_content(*turn.message));
        add_extras(prompt, *turn.message);
        break;
      case Role::kLatestReminder:
        prompt.add_control(tokenizer::kLatestReminderMarker);
        prompt.add_text(joined_content(*turn.message));
        break;
      case Role::kUser:
      case Role::kTool:
        prompt.add_control(tokenizer::kUserMarker);
        for (std::size_t i = 0; i < turn.parts.size(); ++i) {
          if (i > 0) prompt.add_text("\n\n");
          prompt.add_text(turn.parts[i]);
        }
        break;
      case Role::kAssistant:
        add_assistant(prompt, index);
        break;
    }
  }

  static void add_extras(RenderedPrompt& prompt, const Message& message) {
    if (!message.tools.empty()) {
      prompt.add_text("\n\n");
      add_tools_block(prompt, message.tools);
    }
    if (message.response_format) {
      prompt.add_text("\n\n");
      prompt.add_text(kResponseFormat);
      prompt.add_text(checked_json(*message.response_format, "the response format"));
    }
  }

  void add_assistant(RenderedPrompt& prompt, std::size_t index) const {
    const Message& message = *turns_[index].message;
    const bool follows_task = index > 0 && turns_[index - 1].task.has_value();
    const bool has_reasoning =
        is_thinking(think_) && (!drops_ || last_user_ == turns_.size() || index > last_user_);
    if (has_reasoning && !follows_task) {
      prompt.add_text(message.reasoning);
      prompt.add_control(tokenizer::kThinkEndMarker);
    }
    prompt.add_text(joined_content(message));
    if (!message.exact_tool_block.empty()) {
      write_trusted_dsml(prompt, message.exact_tool_block);
    } else if (!message.tool_calls.empty()) {
      prompt.add_text("\n\n");
      write_tool_calls(prompt, message.tool_calls);
    }
    if (!message.without_eos) prompt.add_control(tokenizer::kEosMarker);
  }

  void add_transition(RenderedPrompt& prompt, std::size_t index) const {
    const bool is_last = index + 1 == turns_.size();
    if (!is_last && turns_[index + 1].role != Role::kAssistant &&
        turns_[index + 1].role != Role::kLatestReminder) {
      return;
    }
    const Turn& turn = turns_[index];
    if (turn.task) {
      if (*turn.task == Task::kAction) add_opener(prompt, is_thinking(think_));
      prompt.add_control(task_marker(*turn.task));
    } else if (turn.role == Role::kUser || turn.role == Role::kDeveloper) {
      add_opener(prompt, reasons(index));
    }
  }

  static void add_opener(RenderedPrompt& prompt, bool reasons) {
    prompt.add_control(tokenizer::kAssistantMarker);
    prompt.add_control(reasons ? tokenizer::kThinkMarker : tokenizer::kThinkEndMarker);
  }

  ThinkMode think_;
  std::vector<Turn> turns_;
  bool drops_;
  std::size_t last_user_ = 0;
};

}  // namespace

void add_tools_block(RenderedPrompt& prompt, std::span<const ToolSchema> tools) {
  add_template(prompt, kToolsBefore);
  prompt.add_control(tokenizer::kThinkMarker);
  prompt.add_text(kToolsMiddle);
  prompt.add_control(tokenizer::kThinkMarker);
  prompt.add_text("...");
  prompt.add_control(tokenizer::kThinkEndMarker);
  prompt.add_text(kToolsRest);
  prompt.add_control(tokenizer::kThinkEndMarker);
  prompt.add_text(kToolsSchemas);
  for (std::size_t i = 0; i < tools.size(); ++i) {
    if (i > 0) prompt.add_text("\n");
    prompt.add_text(checked_json(tools[i].json, "a tool's schema"));
  }
  prompt.add_text(kToolsAfter);
}

RenderedPrompt render(std::span<const Message> messages, const RenderOptions& options) {
  const Renderer renderer(messages, options);
  RenderedPrompt prompt;
  prompt.add_control(tokenizer::kBosMarker);
  prompt.add_text(effort_prefix(options.think, options.ladder));
  renderer.add_turns(prompt);
  return prompt;
}

RenderedPrompt render_continuation(std::span<const Message> messages,
                                   const RenderOptions& options,
                                   TranscriptEnd end) {
  RenderedPrompt prompt;
  switch (end) {
    case TranscriptEnd::kTurnClosed:
      break;
    case TranscriptEnd::kInReasoning:
      prompt.add_control(tokenizer::kThinkEndMarker);
      prompt.add_control(tokenizer::kEosMarker);
      break;
    case TranscriptEnd::kInAnswer:
      prompt.add_control(tokenizer::kEosMarker);
      break;
  }
  Renderer(messages, options).add_turns(prompt);
  return prompt;
}

}  // namespace ds4::chat
