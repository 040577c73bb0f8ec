#include "chat/response_parser.h"

#include <nlohmann/json.hpp>

#include "chat/python_json.h"
#include "chat/response_machine.h"

namespace ds4::chat {

std::string_view malformed_reason_name(MalformedReason reason) {
  switch (reason) {
    case MalformedReason::kTruncated:
      return "truncated";
    case MalformedReason::kBadStructure:
      return "bad_structure";
    case MalformedReason::kMissingName:
      return "missing_name";
    case MalformedReason::kDuplicateParameter:
      return "duplicate_parameter";
    case MalformedReason::kOrphanTag:
      return "orphan_tag";
    case MalformedReason::kInReasoning:
      return "in_reasoning";
    case MalformedReason::kTooLarge:
      return "too_large";
  }
  return "";
}

std::string_view repair_name(Repair repair) {
  switch (repair) {
    case Repair::kDoubledBar:
      return "doubled_bar";
    case Repair::kSpacedMarker:
      return "spaced_marker";
    case Repair::kTagAlias:
      return "tag_alias";
    case Repair::kAsciiBar:
      return "ascii_bar";
    case Repair::kMissingBar:
      return "missing_bar";
    case Repair::kNoMarker:
      return "no_marker";
    case Repair::kSelfClosing:
      return "self_closing";
    case Repair::kCurlyQuotes:
      return "curly_quotes";
    case Repair::kMismatchedClose:
      return "mismatched_close";
    case Repair::kArgumentsWrapper:
      return "arguments_wrapper";
    case Repair::kNestedParameter:
      return "nested_parameter";
    case Repair::kRepeatedParameter:
      return "repeated_parameter";
    case Repair::kMissingBlock:
      return "missing_block";
    case Repair::kRecoveredCall:
      return "recovered_call";
    case Repair::kStrayThinkMarker:
      return "stray_think_marker";
    case Repair::kCount:
      break;
  }
  return "";
}

std::vector<ResponseEvent> coalesce(const std::vector<ResponseEvent>& events) {
  std::vector<ResponseEvent> joined;
  for (const ResponseEvent& event : events) {
    if (!joined.empty() && joined.back().index() == event.index()) {
      if (const auto* text = std::get_if<TextPiece>(&event)) {
        std::get<TextPiece>(joined.back()).text += text->text;
        continue;
      }
      if (const auto* reasoning = std::get_if<ReasoningPiece>(&event)) {
        std::get<ReasoningPiece>(joined.back()).text += reasoning->text;
        continue;
      }
      if (const auto* piece = std::get_if<ArgumentPiece>(&event)) {
        std::get<ArgumentPiece>(joined.back()).json += piece->json;
        continue;
      }
    }
    joined.push_back(event);
  }
  return joined;
}

namespace {

// The member `key` of a JSON object, as text; empty when there is none.
std::string json_member(std::string_view object, std::string_view key) {
  for (JsonMember& member : split_object(object).value_or(std::vector<JsonMember>())) {
    if (member.key == key) return std::move(member.value);
  }
  return {};
}

}  // namespace

std::vector<ToolSignature> tool_signatures(const std::vector<ToolSchema>& schemas) {
  std::vector<ToolSignature> signatures;
  for (const ToolSchema& schema : schemas) {
    ToolSignature signature{json_member(schema.json, "name"), {}};
    if (signature.name.empty()) continue;
    const std::string properties =
        json_member(json_member(schema.json, "parameters"), "properties");
    for (JsonMember& property : split_object(properties).value_or(std::vector<JsonMember>())) {
      signature.parameters.push_back(std::move(property.key));
    }
    signatures.push_back(std::move(signature));
  }
  return signatures;
}

ResponseParser::ResponseParser(ParserOptions options)
    : machine_(std::make_unique<ResponseMachine>(std::move(options))) {}
ResponseParser::ResponseParser(ResponseParser&&) noexcept = default;
ResponseParser& ResponseParser::operator=(ResponseParser&&) noexcept = default;
ResponseParser::~ResponseParser() = default;

void ResponseParser::feed(std::string_view bytes, std::vector<ResponseEvent>& events) {
  machine_->feed(bytes, events);
}

void ResponseParser::finish(FinishCause cause, std::vector<ResponseEvent>& events) {
  machine_->finish(cause, events);
}

bool ResponseParser::in_structure() const {
  return machine_->in_structure();
}

void ResponseParser::trust_json() {
  machine_->trust_json();
}

bool ResponseParser::at_block_start() const {
  return machine_->at_block_start();
}

bool ResponseParser::in_reasoning() const {
  return machine_->in_reasoning();
}

bool ResponseParser::in_calls() const {
  return machine_->in_calls();
}

const RepairCounts& ResponseParser::repairs() const {
  return machine_->repairs();
}

void ResponseCollector::add(const ResponseEvent& event) {
  if (const auto* text = std::get_if<TextPiece>(&event)) {
    response_.text += text->text;
  } else if (const auto* reasoning = std::get_if<ReasoningPiece>(&event)) {
    response_.reasoning += reasoning->text;
  } else if (std::holds_alternative<ReasoningEnd>(event)) {
    response_.reasoning_closed = true;
  } else if (const auto* begin = std::get_if<CallBegin>(&event)) {
    open_.push_back({begin->name, {}, {}});
  } else if (const auto* piece = std::get_if<ArgumentPiece>(&event)) {
    open_.back().arguments += piece->json;
  } else if (const auto* end = std::get_if<CallEnd>(&event)) {
    open_.back().invalid_json = end->invalid_json;
  } else if (std::holds_alternative<CallBlockEnd>(event)) {
    for (ParsedCall& call : open_)
      response_.calls.push_back(std::move(call));
    open_.clear();
  } else if (const auto* malformed = std::get_if<Malformed>(&event)) {
    open_.clear();
    response_.malformed.push_back(*malformed);
  }
}

Response parse_response(std::string_view text, ParserOptions options, FinishCause cause) {
  ResponseParser parser(std::move(options));
  std::vector<ResponseEvent> events;
  parser.feed(text, events);
  parser.finish(cause, events);
  ResponseCollector collector;
  for (const ResponseEvent& event : events)
    collector.add(event);
  return collector.take();
}

}  // namespace ds4::chat
