// A request body of any protocol becomes a conversation that renders, or is refused with an Error.
//
// modules: server
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "chat/render.h"
#include "server/ask.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ds4::server;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const AskDefaults defaults{.model = "m", .think = ds4::chat::ThinkMode::kHigh, .sampling = {}};
  for (const auto read :
       {read_chat, read_completions, read_messages, read_messages_to_count, read_responses}) {
    try {
      const Ask ask = read(body, defaults);
      ask.sampling.validate();
      ds4::chat::render(ask.messages, {.think = ask.think});
    } catch (const ds4::Error& error) {
      if (error.code() == ds4::ErrorCode::kInternal) throw;
    }
  }
  return 0;
}
