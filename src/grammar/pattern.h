#pragma once
#include <string_view>

#include "grammar/expression.h"

namespace ds4::grammar {

// A JSON Schema `pattern`: an ECMA-262 regular expression without flags, as an expression for whole
// values; where it is not anchored, anything may stand before and behind.  Supported: characters,
// escapes, classes, `.`, groups, alternatives, greedy and lazy quantifiers, and the anchors `^` and
// `$` at the ends of the pattern or of one of its outermost alternatives.  Throws
// Error(kInvalidArgument) that says what is not: look-around, back references, word boundaries,
// Unicode properties, anchors elsewhere, counts above 1000.
Expression parse_pattern(std::string_view pattern, Spelling spelling);

}  // namespace ds4::grammar
