// Bytes as a client may send them, on a real connection: framing, limits, access and the reading of
// bodies.  Whatever comes, every reply is one of ours and the connection ends.
//
// modules: server
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "server/access.h"
#include "server/ask.h"
#include "server/errors.h"
#include "server/http_server.h"

namespace {

using namespace ds4::server;

// Access as in the product; bodies are read as their path says, and that is the reply.
class ReadingHandler final : public Handler {
 public:
  std::optional<HttpResponse> refuse(const HttpRequest& head) override {
    const auto failure = access_.check(head);
    if (!failure) return std::nullopt;
    return error_response(protocol_of_path(head.path), *failure);
  }
  void handle(const std::shared_ptr<Exchange>& exchange) override {
    const HttpRequest& request = exchange->request();
    const Protocol protocol = protocol_of_path(request.path);
    HttpResponse response{.status = 200, .body = "{}"};
    try {
      const AskDefaults defaults{.model = "m", .think = {}, .sampling = {}};
      if (request.method == "POST") read(protocol, request.body, defaults);
    } catch (const ds4::Error& error) {
      response = error_response(protocol, failure_of(error));
    }
    exchange->reply(std::move(response));
  }
  HttpResponse protocol_error(int status,
                              std::string_view message,
                              std::string_view path) override {
    return error_response(protocol_of_path(path),
                          {.status = status, .message = std::string(message)});
  }

 private:
  static void read(Protocol protocol, std::string_view body, const AskDefaults& defaults) {
    switch (protocol) {
      case Protocol::kChat:
        read_chat(body, defaults);
        break;
      case Protocol::kCompletions:
        read_completions(body, defaults);
        break;
      case Protocol::kMessages:
        read_messages(body, defaults);
        break;
      case Protocol::kResponses:
        read_responses(body, defaults);
        break;
    }
  }

  const Access access_{AccessOptions{}};
};

HttpServer& shared_server() {
  static ReadingHandler handler;
  static HttpServer server(
      [] {
        HttpOptions options;
        options.port = 0;
        options.thread_count = 1;
        options.header_bytes_max = 4096;
        options.body_bytes_max = 64 * 1024;
        return options;
      }(),
      handler);
  static const bool started = [] {
    server.start();
    return true;
  }();
  static_cast<void>(started);
  return server;
}

int connect_to(std::uint16_t port) {
  const int link = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (link < 0 ||
      ::connect(link, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    std::abort();
  }
  // No connection is left waiting when thousands are made a second.
  const linger gone{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(link, SOL_SOCKET, SO_LINGER, &gone, sizeof(gone));
  return link;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int link = connect_to(shared_server().port());
  for (std::size_t sent = 0; sent < size;) {
    const ssize_t count = ::send(link, data + sent, size - sent, MSG_NOSIGNAL);
    if (count <= 0) break;
    sent += static_cast<std::size_t>(count);
  }
  ::shutdown(link, SHUT_WR);
  std::string reply;
  std::array<char, 16384> buffer;
  for (ssize_t count; (count = ::recv(link, buffer.data(), buffer.size(), 0)) > 0;)
    reply.append(buffer.data(), static_cast<std::size_t>(count));
  ::close(link);
  if (!reply.empty() && !reply.starts_with("HTTP/1.1 ")) std::abort();
  return 0;
}
