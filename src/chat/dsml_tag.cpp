#include "chat/dsml_tag.h"

#include "base/utf8.h"
#include "chat/escape.h"

namespace ds4::chat {
namespace {

constexpr std::string_view kBar = "｜";
constexpr std::string_view kWord = "DSML";
constexpr std::string_view kLowerMarker = "dsml:";
constexpr std::size_t kBarsMax = 2;
constexpr std::size_t kSpacesMax = 2;
constexpr std::size_t kNameBytesMax = 24;
constexpr std::string_view kEscapedOpen = "&lt;";
// Longer than any head: what is looked at to tell whether a tag begins.
constexpr std::size_t kHeadBytesMax = 64;

struct Name {
  std::string_view text;
  TagName name;
  bool is_official;
  bool needs_marker;  // too common a word to stand alone
};
constexpr Name kNames[] = {
    {"tool_calls", TagName::kBlock, true, false},
    {"function_calls", TagName::kBlock, false, false},
    {"calls", TagName::kBlock, false, true},
    {"tool_call", TagName::kBlock, false, true},
    {"invoke", TagName::kInvoke, true, false},
    {"parameter", TagName::kParameter, true, false},
    {"parameters", TagName::kParameter, false, true},
    {"param", TagName::kParameter, false, true},
};

constexpr bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// Reads a head from front to back; every reader returns false when the text ends too early.
class HeadReader {
 public:
  explicit HeadReader(std::string_view text) : text_(text) {}

  HeadMatch read() {
    if (text_.empty() || text_[0] != '<') return {};
    at_ = 1;
    skip_slash();
    skip_spaces();
    const Match marker = read_marker();
    if (marker == Match::kPartial) return {Match::kPartial, {}};
    if (head_.is_marked) {
      if (skip_spaces()) head_.repairs.add(Repair::kSpacedMarker);
      if (skip_slash()) head_.repairs.add(Repair::kMismatchedClose);
    }
    return read_name();
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }

  bool skip_slash() {
    if (at_end() || text_[at_] != '/') return false;
    ++at_;
    head_.is_closing = true;
    return true;
  }

  bool skip_spaces() {
    const std::size_t begin = at_;
    while (!at_end() && text_[at_] == ' ' && at_ - begin < kSpacesMax)
      ++at_;
    return at_ > begin;
  }

  // Skips up to kBarsMax bars and counts them.
  Match read_bars(std::size_t* count) {
    for (*count = 0; *count < kBarsMax; ++*count) {
      const std::string_view rest = text_.substr(at_);
      if (!rest.empty() && rest[0] == '|') {
        head_.repairs.add(Repair::kAsciiBar);
        ++at_;
        continue;
      }
      const Match match = match_literal(rest, kBar);
      if (match == Match::kPartial) return Match::kPartial;
      if (match == Match::kNo) break;
      at_ += kBar.size();
    }
    return Match::kYes;
  }

  Match read_marker() {
    const std::size_t begin = at_;
    if (at_end()) return Match::kPartial;
    const Match lower = match_literal(text_.substr(at_), kLowerMarker);
    if (lower == Match::kPartial) return Match::kPartial;
    if (lower == Match::kYes) {
      at_ += kLowerMarker.size();
      head_.is_marked = true;
      head_.repairs.add(Repair::kTagAlias);
      return Match::kYes;
    }
    std::size_t before = 0;
    if (read_bars(&before) == Match::kPartial) return Match::kPartial;
    const Match word = match_literal(text_.substr(at_), kWord);
    if (word == Match::kPartial) return Match::kPartial;
    std::size_t after = 0;
    if (word == Match::kYes) {
      at_ += kWord.size();
      if (read_bars(&after) == Match::kPartial) return Match::kPartial;
    }
    if (word == Match::kNo || before + after == 0) {
      at_ = begin;
      return Match::kNo;
    }
    head_.is_marked = true;
    if (before == 0 || after == 0) head_.repairs.add(Repair::kMissingBar);
    if (before == 2 || after == 2) head_.repairs.add(Repair::kDoubledBar);
    return Match::kYes;
  }

  HeadMatch read_name() {
    const std::size_t begin = at_;
    while (!at_end() && is_name_char(text_[at_]) && at_ - begin < kNameBytesMax)
      ++at_;
    const std::string_view name = text_.substr(begin, at_ - begin);
    if (at_end()) return {is_prefix_of_a_name(name) ? Match::kPartial : Match::kNo, {}};
    const char next = text_[at_];
    const bool is_delimited =
        next == '>' || next == '/' || next == ' ' || next == '\n' || next == '\t' || next == '\r';
    if (!is_delimited) return {};
    head_.bytes = at_;
    for (const Name& known : kNames) {
      if (known.text != name || (known.needs_marker && !head_.is_marked)) continue;
      head_.name = known.name;
      if (!known.is_official) head_.repairs.add(Repair::kTagAlias);
      if (!head_.is_marked) head_.repairs.add(Repair::kNoMarker);
      return {Match::kYes, head_};
    }
    if (!head_.is_marked || next != '>') return {};
    head_.name = TagName::kOther;
    return {Match::kYes, head_};
  }

  // A marked tag may have any name.
  bool is_prefix_of_a_name(std::string_view name) const {
    if (head_.is_marked) return true;  // never longer than kNameBytesMax
    for (const Name& known : kNames) {
      if (!known.needs_marker && known.text.substr(0, name.size()) == name) return true;
    }
    return false;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  TagHead head_;
};

constexpr std::uint32_t kLeftCurly = 0x201C;   // the left double quotation mark
constexpr std::uint32_t kRightCurly = 0x201D;  // the right one
constexpr std::uint32_t kLowCurly = 0x201E;
constexpr std::uint32_t kWideQuote = 0xFF02;

constexpr bool is_double_quote(std::uint32_t c) {
  return c == '"' || c == kLeftCurly || c == kRightCurly || c == kLowCurly || c == kWideQuote;
}
constexpr bool is_quote(std::uint32_t c) {
  return is_double_quote(c) || c == '\'' || c == 0x2018 || c == 0x2019;
}
constexpr bool closes(std::uint32_t open, std::uint32_t c) {
  if (open == '"') return c == '"' || c == kRightCurly;
  if (open == '\'') return c == '\'';
  return is_double_quote(open) ? is_double_quote(c) : is_quote(c);
}

void skip_space(std::string_view& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  text.remove_prefix(first == std::string_view::npos ? text.size() : first);
}

// Takes an attribute's value, with or without quotation marks, off the front of `rest`.
std::string_view take_value(std::string_view& rest, RepairSet& repairs) {
  const DecodedCodePoint open = decode_code_point(rest);
  if (!open.valid || !is_quote(open.value)) {
    const std::string_view value = rest.substr(0, rest.find_first_of(" \t\r\n/"));
    rest.remove_prefix(value.size());
    return value;
  }
  if (open.value >= 0x80) repairs.add(Repair::kCurlyQuotes);
  rest.remove_prefix(open.bytes);
  for (std::size_t i = 0; i < rest.size();) {
    const DecodedCodePoint c = decode_code_point(rest.substr(i));
    if (c.valid && closes(open.value, c.value)) {
      if (c.value >= 0x80) repairs.add(Repair::kCurlyQuotes);
      const std::string_view value = rest.substr(0, i);
      rest.remove_prefix(i + c.bytes);
      return value;
    }
    i += c.bytes;
  }
  const std::string_view value = rest;
  rest = {};
  return value;
}

}  // namespace

HeadMatch match_head(std::string_view text) {
  return HeadReader(text).read();
}

Match match_literal(std::string_view text, std::string_view literal) {
  const std::size_t shared = text.size() < literal.size() ? text.size() : literal.size();
  if (text.substr(0, shared) != literal.substr(0, shared)) return Match::kNo;
  return shared == literal.size() ? Match::kYes : Match::kPartial;
}

Match match_escaped_head(std::string_view text) {
  const Match escaped = match_literal(text, kEscapedOpen);
  if (escaped != Match::kYes) return escaped;
  std::string tag = "<";
  tag += text.substr(kEscapedOpen.size(), kHeadBytesMax);
  const HeadMatch match = match_head(tag);
  if (match.match == Match::kYes && !match.head.is_marked) return Match::kNo;
  return match.match;
}

TagEndFinder::Step TagEndFinder::push(std::string_view text, std::size_t* end) {
  if (seen_ == 0) seen_ = 1;  // the tag's own '<'
  while (seen_ < text.size()) {
    const DecodedCodePoint c = decode_code_point(text.substr(seen_));
    if (!c.valid && incomplete_utf8_suffix(text) == text.size() - seen_) return Step::kMore;
    seen_ += c.bytes;
    if (quote_ != 0) {
      if (closes(quote_, c.value)) quote_ = 0;
      continue;
    }
    if (c.value == '>') {
      *end = seen_;
      return Step::kEnd;
    }
    if (c.value == '<') {
      *end = seen_ - 1;  // the tag without it
      return Step::kBroken;
    }
    if (!is_closing_ && is_quote(c.value)) quote_ = c.value;
  }
  return Step::kMore;
}

TagAttributes parse_attributes(std::string_view text, std::size_t head_bytes) {
  TagAttributes attributes;
  std::string_view rest = text.substr(head_bytes, text.size() - head_bytes - 1);
  for (skip_space(rest); !rest.empty(); skip_space(rest)) {
    if (rest.front() == '/') {
      attributes.is_self_closing = rest.find_first_not_of("/ \t\r\n") == std::string_view::npos;
      rest.remove_prefix(1);
      continue;
    }
    const std::string_view key = rest.substr(0, rest.find_first_of("= \t\r\n/"));
    rest.remove_prefix(key.size());
    skip_space(rest);
    if (rest.empty() || rest.front() != '=') continue;
    rest.remove_prefix(1);
    skip_space(rest);
    const std::string value = unescape_attribute(take_value(rest, attributes.repairs));
    if (key == "name" && !attributes.name) attributes.name = value;
    if (key == "string" && !attributes.string_flag) attributes.string_flag = value;
  }
  return attributes;
}

}  // namespace ds4::chat
