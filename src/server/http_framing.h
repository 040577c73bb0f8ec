#pragma once
#include <optional>
#include <string>

#include "server/exchange.h"

// What the parser of the library lets pass and this server does not: the shapes of a head that two
// programs in a row could read differently (docs/protocols/http.md).  Pure functions.
namespace ds4::server {

struct FramingProblem {
  int status = 400;
  std::string message;
};

// Of a parsed head; `version` is 10 or 11 for HTTP/1.0 and 1.1.
std::optional<FramingProblem> framing_problem(const HttpRequest& head, unsigned version);

}  // namespace ds4::server
