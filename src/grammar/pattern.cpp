#include "grammar/pattern.h"

#include <algorithm>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "base/error.h"
#include "base/utf8.h"

namespace ds4::grammar {

namespace {

constexpr std::uint32_t kCountMax = 1000;
constexpr std::size_t kDepthMax = 64;

const CodePoints kDigits = {{'0', '9'}};
const CodePoints kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kSpace = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                           {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                           {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CodePoints kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

[[noreturn]] void refuse(std::string_view what) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("in the pattern, {}", what));
}

class PatternParser {
 public:
  PatternParser(std::string_view text, Spelling spelling) : text_(text), spelling_(spelling) {}

  Expression run() {
    std::vector<Expression> alternatives;
    do {
      alternatives.push_back(outer_alternative());
    } while (take('|'));
    if (!text_.empty()) refuse("a closing parenthesis has no opening one");
    return choice(std::move(alternatives));
  }

 private:
  bool take(char c) {
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }

  Expression anything() const {
    return repeat(one_of({{0, kCodePointMax}}, spelling_), 0, kUnbounded);
  }

  Expression outer_alternative() {
    std::vector<Expression> parts;
    if (!take('^')) parts.push_back(anything());
    parts.push_back(terms());
    if (!take('$')) parts.push_back(anything());
    if (!text_.empty() && text_.front() != '|' && text_.front() != ')')
      refuse("$ may only stand at the end");
    return sequence(std::move(parts));
  }

  Expression alternatives() {
    if (++depth_ > kDepthMax) refuse("groups nest too deeply");
    std::vector<Expression> parts;
    do {
      parts.push_back(terms());
      if (!text_.empty() && text_.front() == '$') refuse("$ may only stand at the end");
    } while (take('|'));
    --depth_;
    return choice(std::move(parts));
  }

  // Up to what ends an alternative.
  Expression terms() {
    std::vector<Expression> parts;
    while (!text_.empty()) {
      const char c = text_.front();
      if (c == '|' || c == ')' || c == '$') break;
      Expression part = atom();
      quantify(part);
      parts.push_back(std::move(part));
    }
    return sequence(std::move(parts));
  }

  Expression atom() {
    if (take('(')) return group();
    if (take('[')) return one_of(bracket(), spelling_);
    if (take('.')) return one_of(complement(kLineEnds), spelling_);
    if (take('\\')) return one_of(escape(), spelling_);
    const char c = text_.front();
    if (c == '^') refuse("^ may only stand at the beginning");
    if (c == '*' || c == '+' || c == '?') refuse("a quantifier follows nothing");
    const std::uint32_t point = character();
    return one_of({{point, point}}, spelling_);
  }

  Expression group() {
    if (take('?')) {
      if (text_.starts_with("<=") || text_.starts_with("<!") || text_.starts_with("=") ||
          text_.starts_with("!"))
        refuse("look-around is not supported");
      if (take('<')) {
        const std::size_t end = text_.find('>');
        if (end == std::string_view::npos) refuse("a group's name has no end");
        text_.remove_prefix(end + 1);
      } else if (!take(':')) {
        refuse("a group begins with an unknown modifier");
      }
    }
    Expression inside = alternatives();
    if (!take(')')) refuse("a group has no end");
    return inside;
  }

  std::uint32_t character() {
    const DecodedCodePoint c = decode_code_point(text_);
    text_.remove_prefix(c.bytes);
    return c.value;
  }

  // --- quantifiers ---

  void quantify(Expression& part) {
    std::uint32_t least = 0;
    std::uint32_t most = kUnbounded;
    if (take('*')) {
    } else if (take('+')) {
      least = 1;
    } else if (take('?')) {
      most = 1;
    } else if (!counts(least, most)) {
      return;
    }
    take('?');  // a lazy quantifier matches the same texts
    part = repeat(std::move(part), least, most);
  }

  std::optional<std::uint32_t> number() {
    std::uint32_t value = 0;
    std::size_t digits = 0;
    while (digits < text_.size() && text_[digits] >= '0' && text_[digits] <= '9') {
      value = value * 10 + static_cast<std::uint32_t>(text_[digits++] - '0');
      if (value > kCountMax) refuse(fmt::format("counts above {} are not supported", kCountMax));
    }
    if (digits == 0) return std::nullopt;
    text_.remove_prefix(digits);
    return value;
  }

  // "{2}", "{2,}", "{2,5}"; anything else in braces is text.
  bool counts(std::uint32_t& least, std::uint32_t& most) {
    const std::string_view before = text_;
    if (!take('{')) return false;
    const auto first = number();
    if (first) {
      least = most = *first;
      if (take(',')) most = number().value_or(kUnbounded);
      if (take('}')) {
        if (most < least) refuse("a count's limits are in the wrong order");
        return true;
      }
    }
    text_ = before;
    return false;
  }

  // --- escapes and classes ---

  std::uint32_t hexadecimal(std::size_t digits) {
    std::uint32_t value = 0;
    if (text_.size() < digits) refuse("an escape has too few digits");
    for (const char c : text_.substr(0, digits)) {
      const char lower = static_cast<char>(c | 0x20);
      if (c >= '0' && c <= '9') {
        value = value * 16 + static_cast<std::uint32_t>(c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        value = value * 16 + static_cast<std::uint32_t>(lower - 'a' + 10);
      } else {
        refuse("an escape's digits are not hexadecimal");
      }
    }
    text_.remove_prefix(digits);
    return value;
  }

  std::uint32_t unicode_escape() {
    if (!take('{')) return hexadecimal(4);
    const std::size_t digits = text_.find('}');
    if (digits == 0 || digits > 6) refuse("an escape is malformed");
    const std::uint32_t value = hexadecimal(digits);
    text_.remove_prefix(1);
    if (value > kCodePointMax) refuse("an escape is no character");
    return value;
  }

  // Behind the backslash.
  CodePoints escape() {
    if (text_.empty()) refuse("a backslash ends it");
    const std::uint32_t c = character();
    const auto single = [](std::uint32_t point) { return CodePoints{{point, point}}; };
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return complement(kDigits);
      case 'w':
        return kWord;
      case 'W':
        return complement(kWord);
      case 's':
        return kSpace;
      case 'S':
        return complement(kSpace);
      case 't':
        return single('\t');
      case 'n':
        return single('\n');
      case 'r':
        return single('\r');
      case 'f':
        return single('\f');
      case 'v':
        return single('\v');
      case '0':
        return single(0);
      case 'x':
        return single(hexadecimal(2));
      case 'u':
        return single(unicode_escape());
      default:
        break;
    }
    const bool is_letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    const bool is_digit = c >= '0' && c <= '9';
    if (is_letter || is_digit) refuse(fmt::format("\\{} is not supported", static_cast<char>(c)));
    return single(c);
  }

  // Behind the opening bracket.
  CodePoints bracket() {
    const bool negated = take('^');
    CodePoints points;
    while (!take(']')) {
      if (text_.empty()) refuse("a class has no end");
      const CodePoints first = class_member();
      const bool is_range = text_.size() > 1 && text_[0] == '-' && text_[1] != ']';
      if (!is_range) {
        points.insert(points.end(), first.begin(), first.end());
        continue;
      }
      text_.remove_prefix(1);
      const CodePoints last = class_member();
      if (!is_single(first) || !is_single(last) || first[0].first > last[0].first)
        refuse("a class has a malformed range");
      points.emplace_back(first[0].first, last[0].first);
    }
    return negated ? complement(points) : normalized(std::move(points));
  }

  static bool is_single(const CodePoints& points) {
    return points.size() == 1 && points[0].first == points[0].second;
  }

  CodePoints class_member() {
    if (text_.starts_with("\\b")) {
      text_.remove_prefix(2);
      return {{'\b', '\b'}};
    }
    if (take('\\')) return escape();
    const std::uint32_t point = character();
    return {{point, point}};
  }

  std::string_view text_;
  Spelling spelling_;
  std::size_t depth_ = 0;
};

}  // namespace

Expression parse_pattern(std::string_view pattern, Spelling spelling) {
  if (!is_valid_utf8(pattern)) refuse("the text is no UTF-8");
  return PatternParser(pattern, spelling).run();
}

}  // namespace ds4::grammar
