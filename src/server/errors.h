#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "server/ask.h"
#include "server/exchange.h"

// Refusals and failures in the shape of each protocol (docs/protocols/http.md).  Pure functions.
namespace ds4::server {

struct Failure {
  int status = 500;
  std::string message;
  std::string code = {};   // OpenAI's `code`, e.g. "context_length_exceeded"; empty: null
  std::string param = {};  // OpenAI's `param`
  // Context overflow: both numbers; 0: absent.
  std::uint32_t prompt_tokens = 0;
  std::uint32_t context_tokens = 0;
  int retry_after_s = 0;  // 0: no such header
};

int status_of(ErrorCode code);
Failure failure_of(const Error& error);
Failure overflow_failure(Protocol protocol, std::uint32_t prompt_tokens, std::uint32_t context);

// The error object of a protocol as JSON text, for a body or a stream's event.
std::string error_body(Protocol protocol, const Failure& failure);
HttpResponse error_response(Protocol protocol, const Failure& failure);
// Whose shapes a path uses.
Protocol protocol_of_path(std::string_view path);

}  // namespace ds4::server
