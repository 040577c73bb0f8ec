// Whatever a model writes: the events do not depend on how it was cut into pieces, complete calls
// carry a JSON object, and every piece is valid UTF-8.  The first byte chooses the options.
//
// modules: chat
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "chat/python_json.h"
#include "chat/response_parser.h"

namespace {

using ds4::chat::ResponseEvent;

std::vector<ResponseEvent> parse(std::string_view text,
                                 const ds4::chat::ParserOptions& options,
                                 ds4::chat::FinishCause cause,
                                 std::size_t piece_bytes) {
  ds4::chat::ResponseParser parser(options);
  std::vector<ResponseEvent> events;
  for (std::size_t at = 0; at < text.size(); at += piece_bytes) {
    parser.feed(text.substr(at, piece_bytes), events);
  }
  parser.finish(cause, events);
  return ds4::chat::coalesce(events);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::uint8_t choice = data[0];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  ds4::chat::ParserOptions options;
  options.starts_in_reasoning = (choice & 1) != 0;
  if ((choice & 2) != 0) options.tools = {{"f", {"a", "arguments"}}, {"g", {}}};
  if ((choice & 4) != 0) options.reasoning_calls = ds4::chat::ReasoningCalls::kRefuse;
  const auto cause =
      (choice & 8) != 0 ? ds4::chat::FinishCause::kCut : ds4::chat::FinishCause::kEndOfTurn;
  const auto whole = parse(text, options, cause, size);
  if (parse(text, options, cause, 1) != whole) std::abort();
  if (parse(text, options, cause, 2 + choice / 16) != whole) std::abort();
  ds4::chat::ResponseCollector collector;
  for (const ResponseEvent& event : whole)
    collector.add(event);
  const ds4::chat::Response& response = collector.response();
  if (!ds4::is_valid_utf8(response.text) || !ds4::is_valid_utf8(response.reasoning)) std::abort();
  for (const ds4::chat::ParsedCall& call : response.calls) {
    if (call.name.empty() || !ds4::chat::split_object(call.arguments)) std::abort();
  }
  return 0;
}
