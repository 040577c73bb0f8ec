// Blocks, calls and values: the part of the machine between the first tag and the last.
#include <algorithm>
#include <utility>

#include "chat/response_machine.h"
#include "tokenizer/markers.h"

namespace ds4::chat {
namespace {

constexpr bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_space(text.back()))
    text.remove_suffix(1);
  return text;
}

bool is_flag(const std::optional<std::string>& value) {
  return value && (*value == "true" || *value == "false");
}

}  // namespace

// Consumes input that belongs to the block.
void ResponseMachine::take(std::size_t bytes) {
  raw_.append(buffer_, at_, bytes);
  at_ += bytes;
}

void ResponseMachine::emit(ResponseEvent event) {
  (is_deferred_ ? deferred_ : *events_).push_back(std::move(event));
}

Match ResponseMachine::match_reasoning_end() {
  return is_deferred_ ? match_literal(rest(), tokenizer::kThinkEndMarker) : Match::kNo;
}

// --- blocks ---

void ResponseMachine::begin_block(bool is_implicit) {
  is_deferred_ = state_ == State::kReasoning;
  is_implicit_ = is_implicit;
  is_confirmed_ = false;
  is_mid_line_ = !code_.at_line_start();
  is_bare_ = !head_.is_marked;
  has_line_break_ = false;
  is_refused_ = false;
  block_calls_ = 0;
  first_index_ = next_index_;
  block_repairs_ = head_.repairs;
  if (is_implicit) block_repairs_.add(Repair::kMissingBlock);
  raw_ = tag_;
  state_ = State::kBlock;
}

bool ResponseMachine::step_block() {
  const char c = buffer_[at_];
  if (is_space(c)) {
    has_line_break_ = has_line_break_ || c == '\n';
    take(1);
    return true;
  }
  if (c == '<') {
    const Match end = match_reasoning_end();
    if (end == Match::kYes) {
      end_malformed(MalformedReason::kInReasoning);
      return true;
    }
    const HeadMatch head = match_head(rest());
    if (head.match == Match::kYes) {
      begin_tag(head.head);
      return true;
    }
    if (end == Match::kPartial || head.match == Match::kPartial) return false;
  }
  on_junk_in_block();
  return true;
}

void ResponseMachine::on_junk_in_block() {
  if (block_calls_ > 0 && is_implicit_) {
    end_block();
  } else if (!is_confirmed_ && (is_mid_line_ || is_bare_ || !has_line_break_)) {
    roll_back_block();
  } else {
    fail_block(MalformedReason::kBadStructure);
  }
}

void ResponseMachine::on_block_tag() {
  if (head_.is_closing) {
    if (head_.name == TagName::kBlock) {
      end_block();
    } else {
      block_repairs_.add(Repair::kMismatchedClose);
    }
    return;
  }
  switch (head_.name) {
    case TagName::kBlock:
      block_repairs_.add(Repair::kMismatchedClose);
      return;
    case TagName::kParameter:
    case TagName::kOther:
      fail_block(MalformedReason::kBadStructure);
      return;
    case TagName::kInvoke:
      break;
  }
  const TagAttributes attributes = parse_attributes(tag_, head_.bytes);
  if (is_bare_ && !is_confirmed_ && !head_.is_marked && !is_declared(attributes)) {
    roll_back_block();
    return;
  }
  open_call(attributes);
}

// The block was prose after all.
void ResponseMachine::roll_back_block() {
  state_ = is_deferred_ ? State::kReasoning : State::kContent;
  is_deferred_ = false;
  add_text(std::exchange(raw_, {}));
}

void ResponseMachine::end_block() {
  for (std::size_t i = 0; i < repairs_.size(); ++i) {
    if (block_repairs_.has(static_cast<Repair>(i))) ++repairs_[i];
  }
  const bool may_run = !is_deferred_ || (!is_refused_ && !has_recovered_ &&
                                         options_.reasoning_calls == ReasoningCalls::kRecover);
  if (block_calls_ == 0 || !may_run) {
    end_malformed(block_calls_ == 0 ? MalformedReason::kBadStructure
                                    : MalformedReason::kInReasoning);
    return;
  }
  if (is_deferred_) {
    has_recovered_ = true;
    count(Repair::kRecoveredCall);
    is_deferred_ = false;
    events_->emplace_back(ReasoningEnd{});
    for (ResponseEvent& event : deferred_)
      events_->push_back(std::move(event));
  }
  events_->emplace_back(CallBlockEnd{});
  leave_block(State::kContent);
}

// Everything up to the block's end is ignored and then reported.
void ResponseMachine::fail_block(MalformedReason reason) {
  flush_arguments();
  arguments_.reset();
  skip_reason_ = reason;
  state_ = State::kSkip;
}

bool ResponseMachine::step_skip() {
  if (buffer_[at_] != '<') {
    take(std::min(buffer_.find('<', at_), buffer_.size()) - at_);
    return true;
  }
  const Match end = match_reasoning_end();
  if (end == Match::kYes) {
    end_malformed(skip_reason_);
    return true;
  }
  const HeadMatch head = match_head(rest());
  if (end == Match::kPartial || head.match == Match::kPartial) return false;
  const bool ends_block =
      head.match == Match::kYes && head.head.is_closing &&
      (head.head.name == TagName::kBlock || (is_implicit_ && head.head.name == TagName::kInvoke));
  if (ends_block) {
    begin_tag(head.head);
  } else {
    take(1);
  }
  return true;
}

void ResponseMachine::end_malformed(MalformedReason reason) {
  flush_arguments();
  const State next = is_deferred_ ? State::kReasoning : State::kContent;
  if (is_deferred_) next_index_ = first_index_;
  is_deferred_ = false;
  events_->push_back(Malformed{reason, std::exchange(raw_, {})});
  leave_block(next);
}

void ResponseMachine::leave_block(State next) {
  state_ = next;
  arguments_.reset();
  deferred_.clear();
  raw_.clear();
  held_space_.clear();
  code_.reset();
  after_block_ = true;
}

// --- calls ---

const ToolSignature* ResponseMachine::find_tool(std::string_view name) const {
  const auto place = std::find_if(options_.tools.begin(), options_.tools.end(),
                                  [&](const ToolSignature& tool) { return tool.name == name; });
  return place == options_.tools.end() ? nullptr : &*place;
}

// Also true when it is not known what was declared.
bool ResponseMachine::is_declared(const TagAttributes& attributes) const {
  return options_.tools.empty() ||
         (attributes.name && find_tool(trimmed(*attributes.name)) != nullptr);
}

void ResponseMachine::open_call(const TagAttributes& attributes) {
  block_repairs_.add(attributes.repairs);
  const std::string name(trimmed(attributes.name.value_or("")));
  if (name.empty()) {
    fail_block(MalformedReason::kMissingName);
    return;
  }
  const ToolSignature* tool = find_tool(name);
  if (is_deferred_ && tool == nullptr && !options_.tools.empty()) is_refused_ = true;
  is_confirmed_ = true;
  held_space_.clear();
  call_index_ = next_index_++;
  ++block_calls_;
  const bool has_parameter_arguments =
      tool != nullptr && std::find(tool->parameters.begin(), tool->parameters.end(), "arguments") !=
                             tool->parameters.end();
  arguments_.emplace(!has_parameter_arguments);
  if (trusts_json_) arguments_->trust_json();
  swallow_close_ = false;
  emit(CallBegin{call_index_, name});
  state_ = State::kInvoke;
  if (attributes.is_self_closing) end_call();
}

void ResponseMachine::end_call() {
  arguments_->finish();
  flush_arguments();
  block_repairs_.add(arguments_->repairs());
  emit(CallEnd{call_index_, std::move(arguments_->invalid_json())});
  arguments_.reset();
  state_ = State::kBlock;
}

void ResponseMachine::flush_arguments() {
  if (!arguments_) return;
  std::string json = arguments_->take();
  if (!json.empty()) emit(ArgumentPiece{call_index_, std::move(json)});
}

bool ResponseMachine::step_invoke() {
  const char c = buffer_[at_];
  if (is_space(c)) {
    take(1);
    return true;
  }
  if (c == '<') {
    const Match end = match_reasoning_end();
    if (end == Match::kYes) {
      end_malformed(MalformedReason::kInReasoning);
      return true;
    }
    const HeadMatch head = match_head(rest());
    if (head.match == Match::kYes) {
      begin_tag(head.head);
      return true;
    }
    if (end == Match::kPartial || head.match == Match::kPartial) return false;
  }
  if (c == '{' && !arguments_->in_object()) {  // the arguments as bare JSON
    begin_value("arguments", ArgumentBuilder::Type::kJson, !is_bare_);
    return true;
  }
  fail_block(MalformedReason::kBadStructure);
  return true;
}

void ResponseMachine::on_invoke_tag() {
  if (head_.is_closing) {
    switch (head_.name) {
      case TagName::kInvoke:
        if (!std::exchange(swallow_close_, false)) end_call();
        break;
      case TagName::kParameter:
        if (arguments_->in_object()) {
          arguments_->close_object();
        } else {
          block_repairs_.add(Repair::kMismatchedClose);
        }
        break;
      case TagName::kBlock:
        block_repairs_.add(Repair::kMismatchedClose);
        end_call();
        end_block();
        break;
      case TagName::kOther:
        fail_block(MalformedReason::kBadStructure);
        break;
    }
    return;
  }
  const TagAttributes attributes = parse_attributes(tag_, head_.bytes);
  block_repairs_.add(attributes.repairs);
  switch (head_.name) {
    case TagName::kParameter:
      begin_parameter(attributes);
      break;
    case TagName::kInvoke:
      if (attributes.string_flag &&
          (attributes.is_self_closing || !is_flag(attributes.string_flag))) {
        add_attribute_parameter(attributes);
        swallow_close_ = !attributes.is_self_closing;
      } else {
        block_repairs_.add(Repair::kMismatchedClose);
        end_call();
        open_call(attributes);
      }
      break;
    case TagName::kBlock:
    case TagName::kOther:
      fail_block(MalformedReason::kBadStructure);
      break;
  }
}

// --- values ---

void ResponseMachine::begin_parameter(const TagAttributes& attributes) {
  if (attributes.is_self_closing) {
    add_attribute_parameter(attributes);
    return;
  }
  if (!attributes.name || attributes.name->empty()) {
    fail_block(MalformedReason::kMissingName);
    return;
  }
  const bool is_json = attributes.string_flag && *attributes.string_flag == "false";
  begin_value(*attributes.name,
              is_json ? ArgumentBuilder::Type::kJson : ArgumentBuilder::Type::kString,
              head_.is_marked);
}

void ResponseMachine::begin_value(std::string_view name,
                                  ArgumentBuilder::Type type,
                                  bool is_marked) {
  arguments_->begin_value(name, type);
  is_marked_value_ = is_marked;
  value_begun_ = false;
  value_space_.clear();
  in_json_string_ = false;
  in_json_escape_ = false;
  state_ = type == ArgumentBuilder::Type::kJson ? State::kJson : State::kString;
}

// A parameter whose value is an attribute of its tag.
void ResponseMachine::add_attribute_parameter(const TagAttributes& attributes) {
  if (!attributes.name || attributes.name->empty()) {
    fail_block(MalformedReason::kMissingName);
    return;
  }
  block_repairs_.add(Repair::kSelfClosing);
  begin_value(*attributes.name, ArgumentBuilder::Type::kString, head_.is_marked);
  if (!is_flag(attributes.string_flag)) add_value(attributes.string_flag.value_or(""));
  end_value();
}

bool ResponseMachine::step_value() {
  const char c = buffer_[at_];
  if (!value_begun_ && is_space(c)) {
    value_space_ += c;
    take(1);
    return true;
  }
  if (c == '<') return step_value_tag();
  if (c == '&' && state_ == State::kString) {
    const Match escape = match_escaped_head(rest());
    if (escape == Match::kPartial) return false;
    add_value(escape == Match::kYes ? "<" : "&");
    take(escape == Match::kYes ? 4 : 1);
    return true;
  }
  const std::size_t end = std::min(buffer_.find_first_of("<&", at_ + 1), buffer_.size());
  add_value(std::string_view(buffer_).substr(at_, end - at_));
  take(end - at_);
  return true;
}

bool ResponseMachine::step_value_tag() {
  const Match end = match_reasoning_end();
  if (end == Match::kYes) {
    end_malformed(MalformedReason::kInReasoning);
    return true;
  }
  const HeadMatch match = match_head(rest());
  if (end == Match::kPartial || match.match == Match::kPartial) return false;
  const TagHead& head = match.head;
  const bool is_tag = match.match == Match::kYes && head.name != TagName::kOther;
  const bool ends_parameter =
      is_tag && head.is_closing && head.name == TagName::kParameter && !in_json_string_;
  const bool closes =
      is_tag && head.is_closing && (head.is_marked || (ends_parameter && !is_marked_value_));
  const bool nests = is_tag && !head.is_closing && head.name == TagName::kParameter &&
                     !value_begun_ && (head.is_marked || !is_marked_value_);
  if (closes || nests) {
    begin_tag(head);
    return true;
  }
  if (ends_parameter && buffer_[at_ + head.bytes] == '>') {
    unsure_.assign(buffer_, at_, head.bytes + 1);
    take(head.bytes + 1);
    unsure_from_ = state_;
    state_ = State::kUnsureClose;
    return true;
  }
  add_value("<");
  take(1);
  return true;
}

// A closing tag without a marker ended nothing if what follows is more of the value.  It did end a
// marked value when a marked tag follows that can't stand inside one.
bool ResponseMachine::step_unsure_close() {
  const char c = buffer_[at_];
  if (is_space(c)) {
    unsure_ += c;
    take(1);
    return true;
  }
  const HeadMatch match = c == '<' ? match_head(rest()) : HeadMatch{};
  if (match.match == Match::kPartial) return false;
  const TagHead& head = match.head;
  const bool can_follow = head.is_closing
                              ? head.name == TagName::kInvoke || head.name == TagName::kBlock
                              : head.name == TagName::kInvoke || head.name == TagName::kParameter;
  state_ = unsure_from_;
  if (match.match == Match::kYes && head.is_marked && can_follow) {
    block_repairs_.add(Repair::kMismatchedClose);
    end_value();
  } else {
    add_value(unsure_);
  }
  return true;
}

void ResponseMachine::on_value_tag() {
  if (!head_.is_closing) {  // nested parameters
    const TagAttributes attributes = parse_attributes(tag_, head_.bytes);
    block_repairs_.add(attributes.repairs);
    if (!arguments_->open_object()) {
      fail_block(MalformedReason::kTooLarge);
      return;
    }
    state_ = State::kInvoke;
    begin_parameter(attributes);
    return;
  }
  const TagName name = head_.name;
  if (name != TagName::kParameter || head_.is_marked != is_marked_value_) {
    block_repairs_.add(Repair::kMismatchedClose);
  }
  end_value();
  if (state_ == State::kSkip || name == TagName::kParameter) {
    if (state_ == State::kSkip && name == TagName::kBlock) end_malformed(skip_reason_);
    return;
  }
  end_call();
  if (name == TagName::kBlock) end_block();
}

void ResponseMachine::add_value(std::string_view text) {
  if (!value_begun_) arguments_->append(value_space_);
  value_begun_ = true;
  arguments_->append(text);
  if (state_ != State::kJson) return;
  for (const char c : text) {
    if (in_json_escape_) {
      in_json_escape_ = false;
    } else if (c == '\\') {
      in_json_escape_ = in_json_string_;
    } else if (c == '"') {
      in_json_string_ = !in_json_string_;
    }
  }
}

void ResponseMachine::end_value() {
  if (!value_begun_) arguments_->append(value_space_);
  const bool is_good = arguments_->end_value();
  block_repairs_.add(arguments_->repairs());
  state_ = State::kInvoke;
  if (!is_good) fail_block(MalformedReason::kDuplicateParameter);
}

}  // namespace ds4::chat
