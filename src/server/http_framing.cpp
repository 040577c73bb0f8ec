#include "server/http_framing.h"

#include <fmt/format.h>

namespace ds4::server {

std::optional<FramingProblem> framing_problem(const HttpRequest& head, unsigned version) {
  if (version != 10 && version != 11) return FramingProblem{505, "this server speaks HTTP/1.1"};
  const std::size_t codings = head.header_count("transfer-encoding");
  const std::size_t lengths = head.header_count("content-length");
  const std::string_view coding = head.header("transfer-encoding");
  if (codings > 1 || (codings == 1 && !equals_without_case(coding, "chunked"))) {
    return FramingProblem{501,
                          "the transfer coding is not supported; send a Content-Length or chunked"};
  }
  if (codings == 1 && version == 10)
    return FramingProblem{400, "malformed HTTP: HTTP/1.0 knows no transfer codings"};
  if (lengths > 1 || (codings == 1 && lengths == 1))
    return FramingProblem{400, "malformed HTTP: the length is given twice"};
  // The library takes "2, 2" for 2.
  if (head.header("content-length").find_first_not_of("0123456789") != std::string_view::npos)
    return FramingProblem{400, "malformed HTTP: the length is no number"};
  const std::size_t hosts = head.header_count("host");
  if (hosts > 1 || (hosts == 0 && version == 11)) {
    return FramingProblem{
        400, fmt::format("malformed HTTP: {} Host header", hosts == 0 ? "no" : "more than one")};
  }
  if (!head.path.starts_with('/') && !(head.method == "OPTIONS" && head.path == "*"))
    return FramingProblem{400, "malformed HTTP: the target must be a path"};
  if (head.method == "POST" && codings == 0 && lengths == 0)
    return FramingProblem{411, "a POST needs a Content-Length"};
  return std::nullopt;
}

}  // namespace ds4::server
