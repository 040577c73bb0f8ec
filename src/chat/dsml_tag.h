#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "chat/response_parser.h"

namespace ds4::chat {

// The three tags of DSML; kOther is a marked tag of any other name.
enum class TagName { kBlock, kInvoke, kParameter, kOther };

// A set of repairs.
class RepairSet {
 public:
  void add(Repair repair) { bits_ |= 1u << static_cast<unsigned>(repair); }
  void add(RepairSet other) { bits_ |= other.bits_; }
  bool has(Repair repair) const { return (bits_ >> static_cast<unsigned>(repair) & 1u) != 0; }

 private:
  std::uint32_t bits_ = 0;
};

// What a tag begins with: "<", "/", the marker and the name.
struct TagHead {
  TagName name = TagName::kOther;
  bool is_closing = false;
  bool is_marked = false;  // carries a DSML marker in some spelling
  std::size_t bytes = 0;   // up to and without what follows the name
  RepairSet repairs;       // how it differs from the official spelling
};

enum class Match { kNo, kPartial, kYes };  // kPartial: more text may make it a match
struct HeadMatch {
  Match match = Match::kNo;
  TagHead head;
};

// Whether `text` begins with a tag's head, in any of the tolerated spellings.  The answer kYes or
// kNo does not change when more text follows.
HeadMatch match_head(std::string_view text);

// Whether `text` begins with `literal`.
Match match_literal(std::string_view text, std::string_view literal);

// Whether `text` begins with an escaped tag: "&lt;" and what follows the '<' of a marked head.
Match match_escaped_head(std::string_view text);

// Finds the end of a tag byte by byte, with no second look at what it has seen.
class TagEndFinder {
 public:
  explicit TagEndFinder(bool is_closing) : is_closing_(is_closing) {}
  enum class Step { kMore, kEnd, kBroken };  // kBroken: a '<' outside quotation marks
  // `text` is the tag so far; only its new bytes are looked at.
  Step push(std::string_view text, std::size_t* end);

 private:
  bool is_closing_;  // has no attributes, so quotation marks mean nothing
  std::size_t seen_ = 0;
  std::uint32_t quote_ = 0;  // the open quotation mark, 0 outside
};

// The attributes of an opening tag.
struct TagAttributes {
  std::optional<std::string> name;
  std::optional<std::string> string_flag;
  bool is_self_closing = false;
  RepairSet repairs;
};
// `text` is the whole tag, `head_bytes` of which are its head.
TagAttributes parse_attributes(std::string_view text, std::size_t head_bytes);

}  // namespace ds4::chat
