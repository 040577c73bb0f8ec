#include "chat/python_json.h"

#include <charconv>
#include <cmath>
#include <unordered_map>

#include <nlohmann/json.hpp>

namespace ds4::chat {
namespace {

// Python's repr of a float: the shortest digits that read back to the same value; an exponent
// below -4 and from 16 on.
std::string python_float(double value) {
  char digits[40];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific);
  const std::string_view text(digits, static_cast<std::size_t>(end.ptr - digits));
  const std::size_t e = text.find('e');
  std::string mantissa(text.substr(0, e));
  int exponent = 0;
  const std::size_t exponent_at = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + exponent_at, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return mantissa + std::string(text.substr(e));
  const bool is_negative = mantissa[0] == '-';
  if (is_negative) mantissa.erase(0, 1);
  std::erase(mantissa, '.');
  std::string out;
  if (exponent < 0) {
    out = "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + mantissa;
  } else {
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    if (mantissa.size() < whole) mantissa.resize(whole, '0');
    out = mantissa.substr(0, whole) + ".";
    out += mantissa.size() > whole ? mantissa.substr(whole) : "0";
  }
  return is_negative ? "-" + out : out;
}

// Rewrites JSON while it is read, without building a tree: SAX callbacks of nlohmann::json.
class Rewriter {
 public:
  // Called when a value is complete; depth 0 is the root.
  explicit Rewriter(std::vector<JsonMember>* members) : members_(members) {}

  std::string take() { return std::move(out_); }
  bool root_is_object() const { return root_is_object_; }

  bool null() { return scalar("null"); }
  bool boolean(bool value) { return scalar(value ? "true" : "false"); }
  bool number_integer(std::int64_t value) { return scalar(std::to_string(value)); }
  bool number_unsigned(std::uint64_t value) { return scalar(std::to_string(value)); }
  bool number_float(double value, const std::string& text) {
    // Python's integers have no limit; here a large one arrives as a float and its text.
    if (text.find_first_of(".eE") == std::string::npos) return scalar(text);
    return std::isfinite(value) && scalar(python_float(value));
  }
  bool string(std::string& value) {
    begin_value();
    if (is_member()) {
      add_member(true, value);
      return true;
    }
    out_ += '"';
    append_json_escaped(out_, value);
    out_ += '"';
    return true;
  }
  bool binary(std::vector<std::uint8_t>& /*value*/) { return false; }
  bool start_object(std::size_t /*count*/) {
    if (counts_.empty()) root_is_object_ = true;
    return start('{');
  }
  bool end_object() { return end('}'); }
  bool start_array(std::size_t /*count*/) { return start('['); }
  bool end_array() { return end(']'); }
  bool key(std::string& name) {
    if (members_ != nullptr && counts_.size() == 1) {
      key_ = name;
      out_.clear();
      return true;
    }
    if (counts_.back()++ > 0) out_ += ", ";
    out_ += '"';
    append_json_escaped(out_, name);
    out_ += "\": ";
    after_key_ = true;
    return true;
  }
  bool parse_error(std::size_t /*at*/, const std::string& /*token*/, const std::exception& /*e*/) {
    return false;
  }

 private:
  bool is_member() const { return members_ != nullptr && counts_.size() == 1; }

  void begin_value() {
    if (!counts_.empty() && !after_key_ && !is_member() && counts_.back()++ > 0) out_ += ", ";
    after_key_ = false;
  }
  bool scalar(std::string_view text) {
    begin_value();
    out_ += text;
    if (is_member()) add_member(false, out_);
    return true;
  }
  bool start(char bracket) {
    begin_value();
    if (counts_.size() >= kJsonDepthMax) return false;
    counts_.push_back(0);
    out_ += bracket;
    return true;
  }
  bool end(char bracket) {
    counts_.pop_back();
    out_ += bracket;
    if (is_member()) add_member(false, out_);
    return true;
  }
  void add_member(bool is_string, const std::string& value) {
    const auto [place, is_new] = index_.try_emplace(key_, members_->size());
    if (is_new) members_->push_back({key_, is_string, value});
    (*members_)[place->second].is_string = is_string;
    (*members_)[place->second].value = value;
  }

  std::vector<JsonMember>* members_;  // null: the whole value goes to out_
  std::unordered_map<std::string, std::size_t> index_;
  std::string out_;
  std::string key_;
  std::vector<std::size_t> counts_;  // elements so far, a level each
  bool after_key_ = false;
  bool root_is_object_ = false;
};

// The library takes a NUL byte for the end of the text; in JSON it never stands bare.
bool has_nul(std::string_view json) {
  return json.find('\0') != std::string_view::npos;
}

}  // namespace

std::optional<std::string> python_json(std::string_view json) {
  Rewriter rewriter(nullptr);
  if (has_nul(json) || !nlohmann::json::sax_parse(json, &rewriter)) return std::nullopt;
  return rewriter.take();
}

std::optional<std::vector<JsonMember>> split_object(std::string_view json) {
  const std::size_t first = json.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || json[first] != '{') return std::nullopt;
  std::vector<JsonMember> members;
  Rewriter rewriter(&members);
  if (has_nul(json) || !nlohmann::json::sax_parse(json, &rewriter)) return std::nullopt;
  return members;
}

void append_json_escaped(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[(c >> 4) & 15];
          out += kHex[c & 15];
        } else {
          out += c;
        }
    }
  }
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  append_json_escaped(out, text);
  out += '"';
  return out;
}

}  // namespace ds4::chat
