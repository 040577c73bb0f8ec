#include "chat/response_machine.h"

#include <algorithm>
#include <utility>

#include "tokenizer/markers.h"

namespace ds4::chat {
namespace {

using tokenizer::kThinkEndMarker;
using tokenizer::kThinkMarker;

constexpr std::size_t kTagBytesMax = std::size_t{1} << 20;
constexpr std::size_t kTagChunkBytes = 256;
constexpr std::string_view kMarkerWord = "DSML";
constexpr std::string_view kBar = "｜";

constexpr bool is_space(std::uint32_t c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

ResponseMachine::ResponseMachine(ParserOptions options)
    : options_(std::move(options)),
      state_(options_.starts_in_reasoning ? State::kReasoning : State::kContent) {}

void ResponseMachine::feed(std::string_view bytes, std::vector<ResponseEvent>& events) {
  events_ = &events;
  run(holdback_.push(bytes));
  flush_text();
  flush_arguments();
  events_ = nullptr;
}

void ResponseMachine::finish(FinishCause cause, std::vector<ResponseEvent>& events) {
  events_ = &events;
  // A part of a character at a cut, or behind what may be markup, is not worth showing.
  const std::string partial = holdback_.finish();
  if (cause == FinishCause::kEndOfTurn && buffer_.empty()) run(partial);
  if (is_text_state(state_)) {
    finish_text(cause);
  } else {
    finish_block(cause);
  }
  flush_text();
  events_ = nullptr;
}

void ResponseMachine::run(std::string_view bytes) {
  buffer_ += to_valid_utf8(bytes);
  while (at_ < buffer_.size() && step()) {
  }
  buffer_.erase(0, at_);
  at_ = 0;
}

bool ResponseMachine::step() {
  switch (state_) {
    case State::kReasoning:
    case State::kContent:
      return step_text();
    case State::kBlock:
      return step_block();
    case State::kInvoke:
      return step_invoke();
    case State::kString:
    case State::kJson:
      return step_value();
    case State::kUnsureClose:
      return step_unsure_close();
    case State::kTag:
      return step_tag();
    case State::kSkip:
      return step_skip();
  }
  return false;
}

bool ResponseMachine::step_text() {
  if (buffer_[at_] != '<') {
    const std::size_t end = std::min(buffer_.find('<', at_), buffer_.size());
    add_text(std::string_view(buffer_).substr(at_, end - at_));
    at_ = end;
    return true;
  }
  const std::string_view text = rest();
  const bool in_code = code_.in_code();
  const bool in_reasoning = state_ == State::kReasoning;
  bool may_become_markup = false;
  if (in_reasoning || !in_code) {
    const Match end = match_literal(text, kThinkEndMarker);
    if (end == Match::kYes) {
      on_think_end();
      return true;
    }
    may_become_markup = end == Match::kPartial;
  }
  if (!in_code) {
    const Match start = match_literal(text, kThinkMarker);
    if (start == Match::kYes && (in_reasoning || code_.at_line_start())) {
      on_think_start();
      return true;
    }
    const HeadMatch head = match_head(text);
    if (head.match == Match::kYes && head_counts(head.head)) {
      begin_tag(head.head);
      return true;
    }
    may_become_markup =
        may_become_markup || start == Match::kPartial || head.match == Match::kPartial;
  }
  if (may_become_markup) return false;
  add_text("<");
  ++at_;
  return true;
}

void ResponseMachine::add_text(std::string_view text) {
  while (!text.empty()) {
    const DecodedCodePoint c = decode_code_point(text);
    code_.push(c.value);
    if (is_space(c.value)) {
      held_space_ += text.front();
      text.remove_prefix(1);
      continue;
    }
    // White space round a block separates; it is content only between two texts.
    if (!after_block_ || has_text_) text_ += held_space_;
    held_space_.clear();
    after_block_ = false;
    text_ += text.substr(0, c.bytes);
    text.remove_prefix(c.bytes);
    if (state_ == State::kReasoning) {
      reasoning_is_empty_ = false;
    } else {
      has_text_ = true;
    }
  }
}

void ResponseMachine::flush_text() {
  if (text_.empty()) return;
  if (state_ == State::kReasoning) {
    events_->push_back(ReasoningPiece{std::exchange(text_, {})});
  } else {
    events_->push_back(TextPiece{std::exchange(text_, {})});
  }
}

void ResponseMachine::on_think_start() {
  at_ += kThinkMarker.size();
  if (state_ == State::kReasoning) {
    if (!reasoning_is_empty_) count(Repair::kStrayThinkMarker);
    return;  // an echo of the prompt's own marker
  }
  count(Repair::kStrayThinkMarker);
  flush_text();
  held_space_.clear();
  state_ = State::kReasoning;
  reasoning_is_empty_ = true;
  code_.reset();
}

void ResponseMachine::on_think_end() {
  at_ += kThinkEndMarker.size();
  if (state_ == State::kContent) {
    count(Repair::kStrayThinkMarker);
    return;
  }
  text_ += std::exchange(held_space_, {});
  flush_text();
  events_->emplace_back(ReasoningEnd{});
  state_ = State::kContent;
  code_.reset();
}

// Whether a head in text is meant as markup.  Quoted ones are not; without a marker only what opens
// calls at the start of a line is.
bool ResponseMachine::head_counts(const TagHead& head) const {
  if (head.is_closing) return head.is_marked && !code_.after_quote();
  if (code_.after_quote()) return false;
  if (head.is_marked) return true;
  return state_ == State::kContent && code_.at_line_start() && head.name != TagName::kParameter;
}

void ResponseMachine::begin_tag(const TagHead& head) {
  if (is_text_state(state_)) flush_text();
  head_ = head;
  tag_.assign(buffer_, at_, head.bytes);
  at_ += head.bytes;
  tag_end_ = TagEndFinder(head.is_closing);
  tag_from_ = state_;
  state_ = State::kTag;
}

bool ResponseMachine::step_tag() {
  const std::size_t before = tag_.size();
  tag_ += rest().substr(0, kTagChunkBytes);
  std::size_t end = tag_.size();
  const TagEndFinder::Step step = tag_end_.push(tag_, &end);
  at_ += end - before;
  tag_.resize(end);
  switch (step) {
    case TagEndFinder::Step::kMore:
      if (tag_.size() > kTagBytesMax) reject_tag();
      break;
    case TagEndFinder::Step::kEnd:
      state_ = tag_from_;
      on_tag();
      break;
    case TagEndFinder::Step::kBroken:
      reject_tag();
      break;
  }
  return true;
}

void ResponseMachine::reject_tag() {
  state_ = tag_from_;
  if (is_text_state(state_)) {
    add_text(tag_);
    return;
  }
  raw_ += tag_;
  if (state_ == State::kSkip) return;
  fail_block(tag_.size() > kTagBytesMax ? MalformedReason::kTooLarge
                                        : MalformedReason::kBadStructure);
}

void ResponseMachine::on_tag() {
  if (is_text_state(state_)) {
    on_text_tag();
    return;
  }
  raw_ += tag_;
  block_repairs_.add(head_.repairs);
  switch (state_) {
    case State::kBlock:
      on_block_tag();
      break;
    case State::kInvoke:
      on_invoke_tag();
      break;
    case State::kString:
    case State::kJson:
      on_value_tag();
      break;
    default:
      end_malformed(skip_reason_);
      break;
  }
}

void ResponseMachine::on_text_tag() {
  // An invoke without its block must at least begin a line.
  const bool is_stray_invoke =
      head_.name == TagName::kInvoke && head_.is_marked && !code_.at_line_start();
  if (head_.is_closing || head_.name == TagName::kParameter || head_.name == TagName::kOther ||
      is_stray_invoke) {
    if (after_block_ && head_.is_closing) {
      count(Repair::kMismatchedClose);
    } else {
      events_->push_back(Malformed{MalformedReason::kOrphanTag, tag_});
    }
    return;
  }
  if (head_.name == TagName::kBlock) {
    begin_block(false);
    return;
  }
  const TagAttributes attributes = parse_attributes(tag_, head_.bytes);
  const bool has_name = attributes.name && !attributes.name->empty();
  const bool is_prose =
      head_.is_marked ? !has_name && !code_.at_line_start() : !has_name || !is_declared(attributes);
  if (is_prose) {
    add_text(tag_);
    return;
  }
  begin_block(true);
  open_call(attributes);
}

void ResponseMachine::finish_text(FinishCause cause) {
  const std::string leftover(rest());
  buffer_.clear();
  at_ = 0;
  const bool is_end_of_turn = cause == FinishCause::kEndOfTurn;
  if (has(leftover, kMarkerWord)) {
    flush_text();
    events_->push_back(Malformed{MalformedReason::kTruncated, leftover});
    return;
  }
  if (is_end_of_turn && !has(leftover, kBar)) add_text(leftover);
  if (is_end_of_turn && !after_block_) text_ += held_space_;
  held_space_.clear();
}

void ResponseMachine::finish_block(FinishCause cause) {
  const bool is_end_of_turn = cause == FinishCause::kEndOfTurn;
  const std::string leftover(rest());
  buffer_.clear();
  at_ = 0;
  flush_arguments();
  const bool closes_block = state_ == State::kTag && tag_from_ == State::kBlock &&
                            head_.is_closing && head_.name == TagName::kBlock;
  const bool is_between_calls =
      state_ == State::kBlock && (leftover.empty() || leftover.substr(0, 2) == "</");
  if (is_end_of_turn && block_calls_ > 0 && (closes_block || is_between_calls)) {
    if (!is_implicit_) block_repairs_.add(Repair::kMismatchedClose);
    end_block();
    return;
  }
  if (state_ == State::kTag) {
    if (is_text_state(tag_from_)) {
      state_ = tag_from_;
      events_->push_back(Malformed{MalformedReason::kTruncated, tag_ + leftover});
      return;
    }
    raw_ += tag_;
  }
  raw_ += leftover;
  if (is_end_of_turn && !is_confirmed_ && is_mid_line_ && state_ == State::kBlock) {
    roll_back_block();
    text_ += std::exchange(held_space_, {});
    return;
  }
  end_malformed(state_ == State::kSkip ? skip_reason_ : MalformedReason::kTruncated);
}

void ResponseMachine::count(Repair repair) {
  ++repairs_[static_cast<std::size_t>(repair)];
}

bool ResponseMachine::in_structure() const {
  constexpr std::size_t kHeadBytesMax = 64;
  const bool holds_marker = has(rest().substr(0, kHeadBytesMax), kMarkerWord);
  switch (state_) {
    case State::kTag:
    case State::kBlock:
    case State::kInvoke:
      return true;
    case State::kJson:
      return holds_marker || !in_json_string_;
    case State::kReasoning:
    case State::kContent:
    case State::kString:
      return holds_marker;
    case State::kUnsureClose:
    case State::kSkip:
      return false;
  }
  return false;
}

bool ResponseMachine::at_block_start() const {
  const std::string_view held = rest();
  return state_ == State::kContent && held.size() == 1 + tokenizer::kDsmlMarker.size() &&
         held.front() == '<' && held.substr(1) == tokenizer::kDsmlMarker && !code_.in_code() &&
         !code_.after_quote() && code_.at_line_start();
}

bool ResponseMachine::in_reasoning() const {
  const State state = state_ == State::kTag ? tag_from_ : state_;
  return state == State::kReasoning || is_deferred_;
}

bool ResponseMachine::in_calls() const {
  return !is_text_state(state_);
}

}  // namespace ds4::chat
