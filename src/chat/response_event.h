#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ds4::chat {

// Answer text for the reader.  Never markup; never ends inside a UTF-8 character.
struct TextPiece {
  std::string text;
  friend bool operator==(const TextPiece&, const TextPiece&) = default;
};
// Reasoning text, between the think markers.
struct ReasoningPiece {
  std::string text;
  friend bool operator==(const ReasoningPiece&, const ReasoningPiece&) = default;
};
// The reasoning is over; the answer or a call follows.
struct ReasoningEnd {
  friend bool operator==(const ReasoningEnd&, const ReasoningEnd&) = default;
};
// A call opens.  It may be executed only once its block has ended: see CallBlockEnd and Malformed.
struct CallBegin {
  std::size_t index;  // counts the calls of the whole response
  std::string name;
  friend bool operator==(const CallBegin&, const CallBegin&) = default;
};
// A part of the arguments: the pieces of a call, joined, are one valid JSON object.
struct ArgumentPiece {
  std::size_t index;
  std::string json;
  friend bool operator==(const ArgumentPiece&, const ArgumentPiece&) = default;
};
struct CallEnd {
  std::size_t index;
  // Parameters that were announced as JSON and were not: passed on as strings.
  std::vector<std::string> invalid_json;
  friend bool operator==(const CallEnd&, const CallEnd&) = default;
};
// The block is complete: its calls are good, and generation may stop here.
struct CallBlockEnd {
  friend bool operator==(const CallBlockEnd&, const CallBlockEnd&) = default;
};

enum class MalformedReason {
  kTruncated,           // the response ended inside the block
  kBadStructure,        // something that is no tag where a tag must stand
  kMissingName,         // an invoke or parameter without a name
  kDuplicateParameter,  // the same parameter twice, with different values
  kOrphanTag,           // a tag that belongs to no block
  kInReasoning,         // calls inside the reasoning that were not its end
  kTooLarge,            // a tag or nesting beyond the limits
};
std::string_view malformed_reason_name(MalformedReason reason);

// Markup that yields no call.  Calls that this block began are void, whether they ended or not.
struct Malformed {
  MalformedReason reason;
  std::string raw;  // the markup as it was written
  friend bool operator==(const Malformed&, const Malformed&) = default;
};

using ResponseEvent = std::variant<TextPiece,
                                   ReasoningPiece,
                                   ReasoningEnd,
                                   CallBegin,
                                   ArgumentPiece,
                                   CallEnd,
                                   CallBlockEnd,
                                   Malformed>;

// The same events with neighbouring pieces of one kind joined: what tests compare.
std::vector<ResponseEvent> coalesce(const std::vector<ResponseEvent>& events);

}  // namespace ds4::chat
