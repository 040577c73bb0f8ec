#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "chat/argument_builder.h"
#include "chat/code_tracker.h"
#include "chat/dsml_tag.h"
#include "chat/response_event.h"
#include "chat/response_parser.h"

namespace ds4::chat {

// The state machine behind ResponseParser.  Input waits in a buffer only while it may still become
// a marker or a tag's head; a tag in progress and the raw text of a block are kept apart, so that
// nothing is looked at twice.  Confined to one thread.
//
//   kReasoning, kContent --tag--> kBlock --invoke--> kInvoke --parameter--> kString | kJson
//   kTag: between a head and its '>', from any of them; kSkip: behind a defect, to the block's end.
//
// A block that opens inside reasoning is deferred: its events are kept until it is known to be
// complete, because an unfinished one must leave no trace.
class ResponseMachine {
 public:
  explicit ResponseMachine(ParserOptions options);
  void feed(std::string_view bytes, std::vector<ResponseEvent>& events);
  void finish(FinishCause cause, std::vector<ResponseEvent>& events);
  bool in_structure() const;
  bool at_block_start() const;
  void trust_json() { trusts_json_ = true; }
  bool in_reasoning() const;
  bool in_calls() const;
  const RepairCounts& repairs() const { return repairs_; }

 private:
  enum class State {
    kReasoning,
    kContent,
    kBlock,        // between calls
    kInvoke,       // between the parameters of a call
    kString,       // in a parameter's text
    kJson,         // in a parameter's JSON
    kUnsureClose,  // behind a bare closing tag that may belong to the value
    kTag,
    kSkip,
  };

  // --- response_machine.cpp: text, tags, the ends of things ---
  std::string_view rest() const { return std::string_view(buffer_).substr(at_); }
  void run(std::string_view bytes);
  bool step();
  bool step_text();
  bool step_tag();
  void add_text(std::string_view text);
  void flush_text();
  void on_think_start();
  void on_think_end();
  bool head_counts(const TagHead& head) const;
  void begin_tag(const TagHead& head);
  void reject_tag();
  void on_tag();
  void on_text_tag();
  void finish_text(FinishCause cause);
  void finish_block(FinishCause cause);
  void count(Repair repair);
  bool is_text_state(State state) const {
    return state == State::kReasoning || state == State::kContent;
  }

  // --- response_machine_calls.cpp: blocks, calls, values ---
  bool step_block();
  bool step_invoke();
  bool step_value();
  bool step_value_tag();
  bool step_unsure_close();
  bool step_skip();
  // Whether deferred reasoning ends here; kPartial: the buffer must grow first.
  Match match_reasoning_end();
  void on_block_tag();
  void on_invoke_tag();
  void on_value_tag();
  void on_junk_in_block();
  void begin_block(bool is_implicit);
  void end_block();
  void roll_back_block();
  void fail_block(MalformedReason reason);
  void end_malformed(MalformedReason reason);
  void leave_block(State next);
  void open_call(const TagAttributes& attributes);
  void end_call();
  void begin_parameter(const TagAttributes& attributes);
  void begin_value(std::string_view name, ArgumentBuilder::Type type, bool is_marked);
  void add_attribute_parameter(const TagAttributes& attributes);
  void add_value(std::string_view text);
  void end_value();
  void flush_arguments();
  const ToolSignature* find_tool(std::string_view name) const;
  bool is_declared(const TagAttributes& attributes) const;
  void take(std::size_t bytes);
  void emit(ResponseEvent event);

  ParserOptions options_;
  State state_;
  Utf8Holdback holdback_;
  std::string buffer_;
  std::size_t at_ = 0;
  std::vector<ResponseEvent>* events_ = nullptr;  // of the call in progress
  RepairCounts repairs_{};

  // Text.
  std::string text_;        // to be shown, not yet an event
  std::string held_space_;  // white space that may turn out to precede a block
  CodeTracker code_;
  bool reasoning_is_empty_ = true;
  bool after_block_ = false;  // nothing but white space since a block
  bool has_text_ = false;     // some answer text was given

  // The tag in progress.
  std::string tag_;
  TagHead head_;
  TagEndFinder tag_end_{false};
  State tag_from_ = State::kContent;

  // The block in progress.
  std::string raw_;
  bool is_deferred_ = false;
  bool is_implicit_ = false;   // opened by an invoke, without the tag around it
  bool is_confirmed_ = false;  // a call has opened
  bool is_mid_line_ = false;
  bool is_bare_ = false;  // opened by a tag without a marker
  bool has_line_break_ = false;
  bool is_refused_ = false;  // deferred, and calls what was not declared
  bool has_recovered_ = false;
  std::vector<ResponseEvent> deferred_;
  std::size_t block_calls_ = 0;
  std::size_t first_index_ = 0;
  std::size_t next_index_ = 0;
  RepairSet block_repairs_;
  MalformedReason skip_reason_ = MalformedReason::kBadStructure;

  // The call and the value in progress.
  bool trusts_json_ = false;
  std::optional<ArgumentBuilder> arguments_;
  std::size_t call_index_ = 0;
  bool swallow_close_ = false;  // the next closing invoke belongs to a parameter spelled as one
  bool is_marked_value_ = false;
  bool value_begun_ = false;
  std::string value_space_;  // white space before a value that may be nested parameters
  std::string unsure_;
  State unsure_from_ = State::kString;
  bool in_json_string_ = false;
  bool in_json_escape_ = false;
};

}  // namespace ds4::chat
