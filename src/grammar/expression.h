#pragma once
#include <bitset>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace ds4::grammar {

using ByteSet = std::bitset<256>;
inline constexpr std::uint32_t kUnbounded = 0xFFFFFFFF;

// A regular expression over bytes as a tree: what patterns, numbers and the like are before they
// become a Dfa.  A plain value.
struct Expression {
  enum class Kind { kBytes, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;    // an empty sequence is the empty text
  ByteSet bytes = {};             // kBytes: one byte out of these
  std::vector<Expression> parts;  // kRepeat: one
  std::uint32_t least = 0;        // kRepeat
  std::uint32_t most = kUnbounded;
};

Expression byte_range(std::uint8_t first, std::uint8_t last);
Expression text(std::string_view bytes);
Expression sequence(std::vector<Expression> parts);
Expression choice(std::vector<Expression> parts);
Expression repeat(Expression part, std::uint32_t least, std::uint32_t most);
Expression optional(Expression part);

// Code points as sorted, disjoint, inclusive ranges.
using CodePoints = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
inline constexpr std::uint32_t kCodePointMax = 0x10FFFF;

// Sorted and joined.
CodePoints normalized(CodePoints points);
CodePoints complement(const CodePoints& points);

// How characters of a value are spelled where it stands.
enum class Spelling {
  kRaw,   // as UTF-8
  kJson,  // inside a JSON string: escaped where JSON demands it, and nowhere else
};
// One character out of `points`; surrogates are left out, with kJson also the control characters
// that have no short escape.
Expression one_of(const CodePoints& points, Spelling spelling);

}  // namespace ds4::grammar
