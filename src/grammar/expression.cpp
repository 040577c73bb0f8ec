#include "grammar/expression.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/utf8.h"

namespace ds4::grammar {

namespace {

constexpr std::uint32_t kSurrogateFirst = 0xD800;
constexpr std::uint32_t kSurrogateLast = 0xDFFF;

struct ShortEscape {
  std::uint32_t code_point;
  std::string_view text;
};
constexpr std::array<ShortEscape, 7> kShortEscapes = {{{'\b', "\\b"},
                                                       {'\t', "\\t"},
                                                       {'\n', "\\n"},
                                                       {'\f', "\\f"},
                                                       {'\r', "\\r"},
                                                       {'"', "\\\""},
                                                       {'\\', "\\\\"}}};

bool holds(const CodePoints& points, std::uint32_t code_point) {
  return std::any_of(points.begin(), points.end(), [&](const auto& range) {
    return range.first <= code_point && code_point <= range.second;
  });
}

// The parts of `points` that lie within first..last.
CodePoints within(const CodePoints& points, std::uint32_t first, std::uint32_t last) {
  CodePoints kept;
  for (const auto& [low, high] : points)
    if (low <= last && high >= first) kept.emplace_back(std::max(low, first), std::min(high, last));
  return kept;
}

// Adds the byte sequences of a range whose characters all take the same number of bytes.
void add_utf8_range(std::uint32_t low, std::uint32_t high, std::vector<Expression>& out) {
  std::string first;
  std::string last;
  append_utf8(first, low);
  append_utf8(last, high);
  // Split until every byte ranges independently of the others.
  for (std::size_t i = 1; i < first.size(); ++i) {
    const std::uint32_t mask = (1U << (6 * i)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      add_utf8_range(low, low | mask, out);
      add_utf8_range((low | mask) + 1, high, out);
      return;
    }
    if ((high & mask) != mask) {
      add_utf8_range(low, (high & ~mask) - 1, out);
      add_utf8_range(high & ~mask, high, out);
      return;
    }
  }
  Expression bytes;
  for (std::size_t i = 0; i < first.size(); ++i)
    bytes.parts.push_back(
        byte_range(static_cast<std::uint8_t>(first[i]), static_cast<std::uint8_t>(last[i])));
  out.push_back(std::move(bytes));
}

}  // namespace

Expression byte_range(std::uint8_t first, std::uint8_t last) {
  Expression expression{.kind = Expression::Kind::kBytes, .parts = {}};
  for (unsigned byte = first; byte <= last; ++byte)
    expression.bytes.set(byte);
  return expression;
}

Expression text(std::string_view bytes) {
  Expression expression;
  for (const char byte : bytes)
    expression.parts.push_back(
        byte_range(static_cast<std::uint8_t>(byte), static_cast<std::uint8_t>(byte)));
  return expression;
}

Expression sequence(std::vector<Expression> parts) {
  return {.kind = Expression::Kind::kSequence, .parts = std::move(parts)};
}

Expression choice(std::vector<Expression> parts) {
  return {.kind = Expression::Kind::kChoice, .parts = std::move(parts)};
}

Expression repeat(Expression part, std::uint32_t least, std::uint32_t most) {
  Expression expression{.kind = Expression::Kind::kRepeat, .parts = {}, .least = least};
  expression.most = most;
  expression.parts.push_back(std::move(part));
  return expression;
}

Expression optional(Expression part) {
  return repeat(std::move(part), 0, 1);
}

CodePoints normalized(CodePoints points) {
  std::sort(points.begin(), points.end());
  CodePoints joined;
  for (const auto& range : points) {
    if (!joined.empty() && range.first <= joined.back().second + 1) {
      joined.back().second = std::max(joined.back().second, range.second);
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

CodePoints complement(const CodePoints& points) {
  CodePoints rest;
  std::uint32_t next = 0;
  for (const auto& [low, high] : normalized(points)) {
    if (low > next) rest.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kCodePointMax) rest.emplace_back(next, kCodePointMax);
  return rest;
}

Expression one_of(const CodePoints& points, Spelling spelling) {
  std::vector<Expression> spelled;
  const auto add_plain = [&](std::uint32_t first, std::uint32_t last) {
    for (const auto& [low, high] : within(points, first, last))
      add_utf8_range(low, high, spelled);
  };
  if (spelling == Spelling::kJson) {
    add_plain(0x20, '"' - 1);
    add_plain('"' + 1, '\\' - 1);
    add_plain('\\' + 1, 0x7F);
    for (const ShortEscape& escape : kShortEscapes)
      if (holds(points, escape.code_point)) spelled.push_back(text(escape.text));
  } else {
    add_plain(0, 0x7F);
  }
  add_plain(0x80, 0x7FF);
  add_plain(0x800, kSurrogateFirst - 1);
  add_plain(kSurrogateLast + 1, 0xFFFF);
  add_plain(0x10000, kCodePointMax);
  return choice(std::move(spelled));
}

}  // namespace ds4::grammar
