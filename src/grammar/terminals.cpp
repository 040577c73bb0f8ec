#include "grammar/terminals.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace ds4::grammar {

namespace {

constexpr std::int64_t kIntegerMax = 999'999'999'999'999'999;  // 18 digits
constexpr std::uint32_t kFractionDigitsMax = 17;
constexpr std::uint32_t kIndentMax = 40;

// Adds the ways of one UTF-8 character from `from` to `to`; bytes below 0x80 only from `low_ascii`
// on and without `excluded`.
void add_characters(DfaBuilder& dfa,
                    Dfa::State from,
                    Dfa::State to,
                    std::uint8_t low_ascii,
                    std::string_view excluded,
                    std::uint8_t weight) {
  for (unsigned byte = low_ascii; byte < 0x80; ++byte) {
    const auto it = static_cast<std::uint8_t>(byte);
    if (excluded.find(static_cast<char>(byte)) == std::string_view::npos)
      dfa.add(from, it, it, to, weight);
  }
  const Dfa::State last = dfa.add_state();
  dfa.add(last, 0x80, 0xBF, to);
  const Dfa::State last_two = dfa.add_state();
  dfa.add(last_two, 0x80, 0xBF, last);
  const auto lead = [&](std::uint8_t first, std::uint8_t end, std::uint8_t low, std::uint8_t high,
                        Dfa::State next) {
    const Dfa::State second = dfa.add_state();
    dfa.add(second, low, high, next);
    dfa.add(from, first, end, second, weight);
  };
  dfa.add(from, 0xC2, 0xDF, last, weight);
  lead(0xE0, 0xE0, 0xA0, 0xBF, last);
  lead(0xE1, 0xEC, 0x80, 0xBF, last);
  lead(0xED, 0xED, 0x80, 0x9F, last);  // no surrogates
  lead(0xEE, 0xEF, 0x80, 0xBF, last);
  lead(0xF0, 0xF0, 0x90, 0xBF, last_two);
  lead(0xF1, 0xF3, 0x80, 0xBF, last_two);
  lead(0xF4, 0xF4, 0x80, 0x8F, last_two);
}

void add_hex(DfaBuilder& dfa, Dfa::State from, Dfa::State to) {
  dfa.add(from, '0', '9', to);
  dfa.add(from, 'A', 'F', to);
  dfa.add(from, 'a', 'f', to);
}

// \uXXXX from the state behind the u, a high surrogate only with its low one.
void add_unicode_escape(DfaBuilder& dfa, Dfa::State from, Dfa::State to) {
  const Dfa::State last = dfa.add_state();
  add_hex(dfa, last, to);
  const Dfa::State last_two = dfa.add_state();
  add_hex(dfa, last_two, last);
  const Dfa::State last_three = dfa.add_state();
  add_hex(dfa, last_three, last_two);
  add_hex(dfa, from, last_three);
  // D8xx to DBxx: another escape, DCxx to DFxx, must follow; D0xx to D7xx are characters.
  std::array<Dfa::State, 6> low{};
  for (Dfa::State& state : low)
    state = dfa.add_state();
  dfa.add(low[0], '\\', '\\', low[1]);
  dfa.add(low[1], 'u', 'u', low[2]);
  dfa.add(low[2], 'D', 'D', low[3]);
  dfa.add(low[2], 'd', 'd', low[3]);
  dfa.add(low[3], 'C', 'F', last_two);
  dfa.add(low[3], 'c', 'f', last_two);
  add_hex(dfa, low[4], low[0]);
  add_hex(dfa, low[5], low[4]);
  const Dfa::State behind_d = dfa.add_state();
  dfa.add(behind_d, '0', '7', last_two);
  dfa.add(behind_d, '8', '9', low[5]);
  dfa.add(behind_d, 'A', 'B', low[5]);
  dfa.add(behind_d, 'a', 'b', low[5]);
  dfa.add(from, 'D', 'D', behind_d);
  dfa.add(from, 'd', 'd', behind_d);
}

Expression digits(std::uint32_t least, std::uint32_t most) {
  return repeat(byte_range('0', '9'), least, most);
}

Expression one_digit(char first, char last) {
  return byte_range(static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(last));
}

// Numbers of as many digits as both texts have, from `low` to `high`.
Expression between(std::string_view low, std::string_view high) {
  if (low.empty()) return {};
  // Whatever is left is free: the two ends part only once.
  const bool is_free = low.find_first_not_of('0') == std::string_view::npos &&
                       high.find_first_not_of('9') == std::string_view::npos;
  const auto size = static_cast<std::uint32_t>(low.size());
  if (is_free) return digits(size, size);
  const std::uint32_t rest = size - 1;
  if (low.front() == high.front()) {
    return sequence({one_digit(low.front(), low.front()), between(low.substr(1), high.substr(1))});
  }
  std::vector<Expression> parts;
  parts.push_back(sequence(
      {one_digit(low.front(), low.front()), between(low.substr(1), std::string(rest, '9'))}));
  if (high.front() - low.front() > 1) {
    parts.push_back(sequence(
        {one_digit(static_cast<char>(low.front() + 1), static_cast<char>(high.front() - 1)),
         digits(rest, rest)}));
  }
  parts.push_back(sequence(
      {one_digit(high.front(), high.front()), between(std::string(rest, '0'), high.substr(1))}));
  return choice(std::move(parts));
}

// Whole numbers from `low` to `high`, both at least 0; no texts when there are none.
Expression natural(std::int64_t low, std::int64_t high) {
  std::vector<Expression> parts;
  std::int64_t limit = 9;  // the largest number of as many digits
  for (std::int64_t first = 0; first <= high; first = limit + 1, limit = limit * 10 + 9) {
    const std::int64_t from = std::max(first, low);
    const std::int64_t to = std::min(limit, high);
    if (from <= to) parts.push_back(between(std::to_string(from), std::to_string(to)));
    if (limit >= kIntegerMax) break;
  }
  return choice(std::move(parts));
}

// Numbers x with low <= x <= high, or < where excluded; both at least 0.
Expression magnitude(std::int64_t low, bool excludes_low, std::int64_t high, bool excludes_high) {
  const Expression point = text(".");
  const Expression any = digits(1, kFractionDigitsMax);
  const Expression zeros = repeat(byte_range('0', '0'), 1, kFractionDigitsMax);
  const Expression some = sequence({digits(0, kFractionDigitsMax - 1), byte_range('1', '9')});
  std::vector<Expression> parts;
  if (low < high) {
    if (excludes_low) {
      parts.push_back(sequence({natural(low, low), point, some}));
      parts.push_back(sequence({natural(low + 1, high - 1), optional(sequence({point, any}))}));
    } else {
      parts.push_back(sequence({natural(low, high - 1), optional(sequence({point, any}))}));
    }
  }
  const bool holds_high = !excludes_high && (low < high || !excludes_low);
  if (holds_high)
    parts.push_back(sequence({natural(high, high), optional(sequence({point, zeros}))}));
  return choice(std::move(parts));
}

}  // namespace

DfaPtr json_string(bool counts) {
  const auto weight = static_cast<std::uint8_t>(counts ? 1 : 0);
  DfaBuilder dfa;
  const Dfa::State body = dfa.add_state();
  const Dfa::State end = dfa.add_state(true);
  const Dfa::State backslash = dfa.add_state();
  const Dfa::State unicode = dfa.add_state();
  dfa.add(Dfa::kStart, '"', '"', body);
  add_characters(dfa, body, body, 0x20, "\"\\", weight);
  dfa.add(body, '"', '"', end);
  dfa.add(body, '\\', '\\', backslash, weight);
  for (const char c : std::string_view("\"\\/bfnrt"))
    dfa.add(backslash, static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c), body);
  dfa.add(backslash, 'u', 'u', unicode);
  add_unicode_escape(dfa, unicode, body);
  return dfa.build();
}

DfaPtr json_key_other_than(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  quoted.reserve(names.size());
  for (const std::string& name : names)
    quoted.push_back("\"" + name + "\"");
  const DfaPtr taken = dfa_of_texts(quoted);
  DfaBuilder plain;
  const Dfa::State body = plain.add_state();
  plain.add(Dfa::kStart, '"', '"', body);
  add_characters(plain, body, body, 0x20, "\"\\", 0);
  plain.add(body, '"', '"', plain.add_state(true));
  return difference(*plain.build(), *taken);
}

DfaPtr raw_text(std::string_view close, bool counts) {
  const auto weight = static_cast<std::uint8_t>(counts ? 1 : 0);
  DfaBuilder dfa;
  // Along the closing text; text that leaves it goes on in the body, and its first byte may begin
  // the closing text anew.
  std::vector<Dfa::State> along = {Dfa::kStart};
  for (std::size_t i = 0; i < close.size(); ++i)
    along.push_back(dfa.add_state(i + 1 == close.size()));
  const auto first = static_cast<std::uint8_t>(close.front());
  for (std::size_t i = 0; i < close.size(); ++i) {
    // Behind the marker's byte nothing but the closing text can follow.
    const bool is_behind_marker = close.substr(0, i).find('\xFF') != std::string_view::npos;
    if (!is_behind_marker && (i == 0 || !counts)) {
      add_characters(dfa, along[i], Dfa::kStart, 0x20, close.substr(0, 1), weight);
      for (const std::uint8_t space : {'\t', '\n', '\r'})
        dfa.add(along[i], space, space, Dfa::kStart, weight);
      dfa.add(along[i], first, first, along[1]);
    }
    const auto byte = static_cast<std::uint8_t>(close[i]);
    dfa.add(along[i], byte, byte, along[i + 1]);
  }
  return dfa.build();
}

Expression json_integer(const NumberBounds& bounds) {
  const std::int64_t low =
      bounds.least ? std::max(*bounds.least, -kIntegerMax) + bounds.excludes_least : -kIntegerMax;
  const std::int64_t high =
      bounds.most ? std::min(*bounds.most, kIntegerMax) - bounds.excludes_most : kIntegerMax;
  if (low > high)
    throw Error(ErrorCode::kInvalidArgument, "no whole number lies within the bounds");
  std::vector<Expression> parts;
  if (high >= 0) parts.push_back(natural(std::max<std::int64_t>(low, 0), high));
  if (low < 0)
    parts.push_back(sequence(
        {text("-"), natural(std::max<std::int64_t>(-std::min<std::int64_t>(high, -1), 1), -low)}));
  return choice(std::move(parts));
}

Expression json_number(const NumberBounds& bounds) {
  if (!bounds.is_bounded()) {
    return sequence({optional(text("-")), natural(0, kIntegerMax),
                     optional(sequence({text("."), digits(1, kFractionDigitsMax)})),
                     optional(sequence({choice({text("e"), text("E")}),
                                        optional(choice({text("+"), text("-")})), digits(1, 2)}))});
  }
  const std::int64_t low = std::max(bounds.least.value_or(-kIntegerMax), -kIntegerMax);
  const std::int64_t high = std::min(bounds.most.value_or(kIntegerMax), kIntegerMax);
  if (low > high || (low == high && (bounds.excludes_least || bounds.excludes_most)))
    throw Error(ErrorCode::kInvalidArgument, "no number lies within the bounds");
  std::vector<Expression> parts;
  if (high >= 0)
    parts.push_back(magnitude(std::max<std::int64_t>(low, 0), low >= 0 && bounds.excludes_least,
                              high, bounds.excludes_most));
  if (low < 0) {
    // What is below 0, mirrored; 0 itself is written without a sign.
    const std::int64_t least = std::max<std::int64_t>(-high, 0);
    const bool excludes = high >= 0 || bounds.excludes_most;
    parts.push_back(sequence({text("-"), magnitude(least, excludes, -low, bounds.excludes_least)}));
  }
  return choice(std::move(parts));
}

Expression json_space() {
  return choice(
      {Expression{}, text(" "), sequence({text("\n"), repeat(text(" "), 0, kIndentMax)})});
}

}  // namespace ds4::grammar
