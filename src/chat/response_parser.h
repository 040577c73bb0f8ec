#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat/message.h"
#include "chat/response_event.h"

namespace ds4::chat {

class ResponseMachine;

// What the parser needs to know of a function on offer.
struct ToolSignature {
  std::string name;
  std::vector<std::string> parameters;
};
// Read from schemas; a schema that is no JSON object with a name is left out.
std::vector<ToolSignature> tool_signatures(const std::vector<ToolSchema>& schemas);

// Repairs that the parser makes silently, for counting.
enum class Repair : std::uint8_t {
  kDoubledBar,         // <｜｜DSML｜｜
  kSpacedMarker,       // a space behind the marker, inside the tag's head
  kTagAlias,           // calls, function_calls, param ... for the official names
  kAsciiBar,           // |
  kMissingBar,         // DSML｜ or ｜DSML
  kNoMarker,           // <invoke name="...">
  kSelfClosing,        // a parameter as <invoke name="k" string="value"/>
  kCurlyQuotes,        // typographic quotation marks round attributes
  kMismatchedClose,    // a closing tag of another kind or spelling, or none
  kArgumentsWrapper,   // one parameter `arguments` that holds the object
  kNestedParameter,    // parameters inside a parameter
  kRepeatedParameter,  // the same parameter twice with the same value
  kMissingBlock,       // invoke without the block around it
  kRecoveredCall,      // a complete block at the end of unclosed reasoning
  kStrayThinkMarker,   // a think marker where none belongs
  kCount,
};
std::string_view repair_name(Repair repair);
using RepairCounts = std::array<std::uint32_t, static_cast<std::size_t>(Repair::kCount)>;

// What to do with a complete block of calls inside reasoning that was never closed.
enum class ReasoningCalls {
  kRecover,  // once per response: the reasoning ends and the calls are given
  kRefuse,   // Malformed
};

struct ParserOptions {
  bool starts_in_reasoning = false;  // the prompt ended with <think>
  ReasoningCalls reasoning_calls = ReasoningCalls::kRecover;
  std::vector<ToolSignature> tools;  // empty: not known
};

enum class FinishCause {
  kEndOfTurn,  // the model ended its turn
  kCut,        // a length limit, a stop string or a cancel
};

// Turns what the model writes into events, piece by piece: the only parser of DSML in the project.
// The events do not depend on how the text was cut into pieces, once neighbouring pieces are
// joined (coalesce()).  Tolerant of the spellings listed in docs/protocols/dsml.md; whatever could
// become markup is held back, and markup never appears in text or reasoning, except where the model
// quotes it in code or prose.  Linear in the input.  Confined to one thread.
class ResponseParser {
 public:
  explicit ResponseParser(ParserOptions options);
  ResponseParser(ResponseParser&&) noexcept;
  ResponseParser& operator=(ResponseParser&&) noexcept;
  ResponseParser(const ResponseParser&) = delete;
  ResponseParser& operator=(const ResponseParser&) = delete;
  ~ResponseParser();

  // Appends the events that `bytes` completes.  `bytes` may end anywhere, inside a character too.
  void feed(std::string_view bytes, std::vector<ResponseEvent>& events);
  // Appends what is left; afterwards the parser must not be fed.
  void finish(FinishCause cause, std::vector<ResponseEvent>& events);

  // Whether the next byte is DSML structure: a tag, its attributes, or JSON outside its strings.
  // There the sampler must be greedy; inside string payloads and in plain text it must not.
  bool in_structure() const;
  bool in_reasoning() const;
  // From here on what is announced as JSON is known to be JSON, because a mask holds it to that: it
  // is passed on as it grows and as it is written.
  void trust_json();

  // Whether the text ends with "<" and the marker, where they open a block of calls: outside
  // reasoning, code and quotation, at the start of a line.
  bool at_block_start() const;
  // Whether a block of calls is open, payload included.
  bool in_calls() const;
  const RepairCounts& repairs() const;

 private:
  std::unique_ptr<ResponseMachine> machine_;
};

struct ParsedCall {
  std::string name;
  std::string arguments;  // one JSON object
  std::vector<std::string> invalid_json;
  friend bool operator==(const ParsedCall&, const ParsedCall&) = default;
};

// A whole response, put together from its events: calls of complete blocks alone.
struct Response {
  std::string text;
  std::string reasoning;
  bool reasoning_closed = false;
  std::vector<ParsedCall> calls;
  std::vector<Malformed> malformed;
};
class ResponseCollector {
 public:
  void add(const ResponseEvent& event);
  const Response& response() const { return response_; }
  Response take() { return std::move(response_); }

 private:
  Response response_;
  std::vector<ParsedCall> open_;  // of the block that has not ended
};

// The whole text at once.
Response parse_response(std::string_view text, ParserOptions options, FinishCause cause);

}  // namespace ds4::chat
