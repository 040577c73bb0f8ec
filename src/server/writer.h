#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "server/answer_event.h"
#include "server/ask.h"
#include "server/exchange.h"

namespace ds4::server {

// Says one answer in a protocol's words: as a stream of server-sent events, or whole.  Confined to
// its connection's thread.
class Writer {
 public:
  Writer() = default;
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  virtual ~Writer() = default;

  // The stream, in this order: begin() once, add() for every event, the Outcome last.
  virtual void begin(std::string& out) = 0;
  virtual void add(const AnswerEvent& event, std::string& out) = 0;
  // What tells a waiting client that the server is alive.
  virtual void keep_alive(std::string& out) = 0;

  // The whole answer as a body; not for Finish::kError.
  virtual std::string whole(const AnswerRecord& record, const Outcome& outcome) = 0;
};

struct WriterOptions {
  std::int64_t created_s = 0;  // Unix time
  // Fixed ids, for tests; empty: random.
  std::string id = {};
};

// A writer for the ask's protocol.  `ask` must outlive it.
std::unique_ptr<Writer> make_writer(const Ask& ask, const WriterOptions& options);

// For the implementations and tests.
std::unique_ptr<Writer> make_chat_writer(const Ask& ask, const WriterOptions& options);
std::unique_ptr<Writer> make_completions_writer(const Ask& ask, const WriterOptions& options);
std::unique_ptr<Writer> make_messages_writer(const Ask& ask, const WriterOptions& options);
std::unique_ptr<Writer> make_responses_writer(const Ask& ask, const WriterOptions& options);

// The name that a finished call has for the client, and its namespace.
const OfferedTool* find_tool(const Ask& ask, std::string_view name);

}  // namespace ds4::server
