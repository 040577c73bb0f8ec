#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/dfa.h"

// The terminals of JSON and of tool calls' parameters.  Pure functions.
namespace ds4::grammar {

// A JSON string with its quotes; counts its characters when `counts`.
DfaPtr json_string(bool counts);
// A JSON string with its quotes, none of `names`, written without escapes: a key beside them.
DfaPtr json_key_other_than(const std::vector<std::string>& names);
// Text as it is, any UTF-8 without control characters but tabs and line breaks, up to and including
// `close`.  When `counts`, the text counts its characters and may not hold the first byte of
// `close`.
DfaPtr raw_text(std::string_view close, bool counts);

// Inclusive or exclusive ends of a range of numbers.
struct NumberBounds {
  std::optional<std::int64_t> least;
  std::optional<std::int64_t> most;
  bool excludes_least = false;
  bool excludes_most = false;
  bool is_bounded() const { return least || most; }
};
// Whole numbers within the bounds, up to 18 digits.  Throws Error(kInvalidArgument) when there are
// none.
Expression json_integer(const NumberBounds& bounds);
// Numbers within the bounds: up to 18 digits before and 17 behind the point, without bounds an
// exponent of up to 2 digits.
Expression json_number(const NumberBounds& bounds);

// White space between the parts of a JSON value: nothing, one space, or one line break with up to
// 40 spaces, so that a model cannot go on with it for ever.
Expression json_space();

}  // namespace ds4::grammar
