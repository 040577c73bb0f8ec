#include "chat/argument_builder.h"

#include <utility>

#include "chat/python_json.h"

namespace ds4::chat {
namespace {

constexpr std::string_view kWrapperName = "arguments";

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

}  // namespace

void ArgumentBuilder::begin_value(std::string_view name, Type type) {
  name_ = name;
  type_ = type;
  value_.clear();
  is_streaming_ = false;
  is_repeated_ = frames_.back().values.count(name_) > 0;
  const bool may_wrap =
      unwraps_ && !in_object() && !is_open_ && !has_wrapper_ && name == kWrapperName;
  holds_ = is_repeated_ || may_wrap;
  if (holds_) return;
  if (has_wrapper_) flush_wrapper();
  write_key(name);
}

void ArgumentBuilder::write_key(std::string_view name) {
  if (!is_open_) {
    out_ += '{';
    is_open_ = true;
  } else if (!is_first_) {
    out_ += ", ";
  }
  is_first_ = false;
  out_ += json_quote(name);
  out_ += ": ";
}

void ArgumentBuilder::append(std::string_view text) {
  value_ += text;
  if (holds_ || (type_ == Type::kJson && !trusts_json_)) return;
  if (type_ == Type::kJson) {
    out_ += text;
  } else {
    if (!is_streaming_) out_ += '"';
    append_json_escaped(out_, text);
  }
  is_streaming_ = true;
}

std::string ArgumentBuilder::value_json() {
  if (type_ == Type::kString) return json_quote(value_);
  const std::string_view text = trimmed(value_);
  if (python_json(text)) return std::string(text);
  invalid_json_.push_back(name_);
  return json_quote(value_);
}

bool ArgumentBuilder::end_value() {
  const std::string json = value_json();
  if (is_repeated_) {
    repairs_.add(Repair::kRepeatedParameter);
    return frames_.back().values[name_] == json;
  }
  frames_.back().values[name_] = json;
  if (holds_) {
    has_wrapper_ = true;
    wrapper_ = json;
    wrapper_text_ = std::move(value_);
  } else if (is_streaming_) {
    if (type_ == Type::kString) out_ += '"';
  } else {
    out_ += json;
  }
  return true;
}

bool ArgumentBuilder::open_object() {
  if (is_repeated_ || frames_.size() >= kNestingMax) return false;
  if (holds_) {  // the wrapper of all arguments, spelled as tags: its parameters are the call's
    repairs_.add(Repair::kArgumentsWrapper);
    unwraps_ = false;
    return true;
  }
  repairs_.add(Repair::kNestedParameter);
  frames_.back().values[name_] = std::string();  // equal to no value
  frames_.emplace_back();
  out_ += '{';
  is_first_ = true;
  return true;
}

void ArgumentBuilder::close_object() {
  frames_.pop_back();
  out_ += '}';
  is_first_ = false;
}

void ArgumentBuilder::flush_wrapper() {
  has_wrapper_ = false;
  write_key(kWrapperName);
  out_ += wrapper_;
}

void ArgumentBuilder::finish() {
  while (in_object())
    close_object();
  if (has_wrapper_) {
    const std::string_view text = trimmed(wrapper_text_);
    if (split_object(text)) {
      repairs_.add(Repair::kArgumentsWrapper);
      out_ += text;
      return;
    }
    flush_wrapper();
  }
  out_ += is_open_ ? "}" : "{}";
}

std::string ArgumentBuilder::take() {
  return std::exchange(out_, {});
}

}  // namespace ds4::chat
