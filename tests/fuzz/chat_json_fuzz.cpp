// A conversation from a client either renders, with the same markers whatever its text, or is
// refused with an Error; our own writing of it reads back to the same prompt.
//
// modules: chat
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "chat/coerce.h"
#include "chat/message_json.h"
#include "chat/render.h"
#include "chat/strict_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ds4::chat::coerce_arguments(text, text);
  try {
    ds4::chat::parse_strictly(text, ds4::chat::StrictMode::kThinking);
  } catch (const ds4::Error&) {
    // refused: not what the official encoder writes
  }
  try {
    const auto messages = ds4::chat::parse_messages(text);
    const auto prompt = ds4::chat::render(messages, {});
    const auto again =
        ds4::chat::render(ds4::chat::parse_messages(ds4::chat::messages_to_json(messages)), {});
    if (prompt != again) std::abort();
  } catch (const ds4::Error&) {
    return 0;
  }
  return 0;
}
