#include "chat/history.h"

#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "base/error.h"
#include "chat/escape.h"

namespace ds4::chat {
namespace {

std::string tool_result(std::string_view content) {
  return "<tool_result>" + escape_tool_result(content) + "</tool_result>";
}

std::string unsupported(const ContentBlock& block) {
  return "[Unsupported " + block.type + "]";
}

// A part of a user turn, with the call it answers when it is a result.
struct Part {
  std::string text;
  bool is_result = false;
  std::string tool_call_id;
};

class Merger {
 public:
  std::vector<Turn> merge(std::span<const Message> messages) {
    for (std::size_t i = 0; i < messages.size(); ++i)
      add(messages[i], i);
    flush();
    return std::move(turns_);
  }

 private:
  void add(const Message& message, std::size_t index) {
    if (message.role == Role::kUser || message.role == Role::kTool) {
      add_to_user_turn(message, index);
      return;
    }
    flush();
    if (message.role == Role::kDeveloper && !has_content(message)) {
      fail(message, index, "has no content");
    }
    if (message.role == Role::kAssistant && !message.tool_calls.empty()) note_calls(message);
    Turn turn;
    turn.role = message.role;
    turn.message = &message;
    turn.task = message.task;
    turns_.push_back(std::move(turn));
  }

  static bool has_content(const Message& message) {
    return message.content.has_value() || !message.blocks.empty();
  }

  [[noreturn]] static void fail(const Message& message, std::size_t index, std::string_view what) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("message {} ({}) {}", index, role_name(message.role), what));
  }

  void add_to_user_turn(const Message& message, std::size_t index) {
    if (!has_content(message)) fail(message, index, "has no content");
    // A task closes its turn: what follows is a turn of its own.
    if (!parts_.empty() && task_) flush();
    if (message.role == Role::kTool) {
      parts_.push_back({tool_result(tool_content(message)), true, message.tool_call_id});
    } else {
      add_user_parts(message);
      if (message.task) task_ = message.task;
    }
    user_message_ = &message;
  }

  static std::string tool_content(const Message& message) {
    if (message.blocks.empty()) return *message.content;
    std::string joined;
    for (const ContentBlock& block : message.blocks) {
      if (&block != message.blocks.data()) joined += "\n\n";
      joined += block.kind == BlockKind::kOther ? unsupported(block) : block.text;
    }
    return joined;
  }

  void add_user_parts(const Message& message) {
    if (message.blocks.empty()) parts_.push_back({*message.content, false, {}});
    for (const ContentBlock& block : message.blocks) {
      switch (block.kind) {
        case BlockKind::kText:
          parts_.push_back({block.text, false, {}});
          break;
        case BlockKind::kToolResult:
          parts_.push_back({tool_result(block.text), true, block.tool_call_id});
          break;
        case BlockKind::kOther:
          parts_.push_back({unsupported(block), false, {}});
          break;
      }
    }
  }

  void note_calls(const Message& message) {
    call_order_.clear();
    for (std::size_t i = 0; i < message.tool_calls.size(); ++i) {
      const std::string& id = message.tool_calls[i].id;
      if (!id.empty()) call_order_[id] = i;
    }
  }

  // Puts the results, among themselves, into the order of their calls.
  void sort_results() {
    if (call_order_.empty()) return;
    std::vector<std::pair<std::size_t, std::string>> results;  // the call's place, the text
    for (Part& part : parts_) {
      if (!part.is_result) continue;
      const auto place = call_order_.find(part.tool_call_id);
      results.emplace_back(place == call_order_.end() ? 0 : place->second, std::move(part.text));
    }
    std::stable_sort(results.begin(), results.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::size_t next = 0;
    for (Part& part : parts_) {
      if (part.is_result) part.text = std::move(results[next++].second);
    }
  }

  void flush() {
    if (parts_.empty()) return;
    sort_results();
    Turn turn;
    turn.message = user_message_;
    turn.task = task_;
    for (Part& part : parts_)
      turn.parts.push_back(std::move(part.text));
    turns_.push_back(std::move(turn));
    parts_.clear();
    task_.reset();
  }

  std::vector<Turn> turns_;
  std::vector<Part> parts_;  // of the user turn being gathered
  std::optional<Task> task_;
  const Message* user_message_ = nullptr;
  std::unordered_map<std::string, std::size_t>
      call_order_;  // of the last assistant turn with calls
};

}  // namespace

std::vector<Turn> merge_turns(std::span<const Message> messages) {
  return Merger().merge(messages);
}

std::size_t last_user_turn(const std::vector<Turn>& turns) {
  for (std::size_t i = turns.size(); i > 0; --i) {
    if (turns[i - 1].role == Role::kUser || turns[i - 1].role == Role::kDeveloper) return i - 1;
  }
  return turns.size();
}

}  // namespace ds4::chat
