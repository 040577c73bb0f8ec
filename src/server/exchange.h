#pragma once
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// One HTTP request and its reply, as the rest of the server sees them: no library of the network
// shows here.
namespace ds4::server {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// Header names compare without case.
struct HttpRequest {
  std::string method;
  std::string path;   // without the query
  std::string query;  // behind the first '?'
  HeaderList headers;
  std::string body;
  std::string peer;  // address, for the log

  // The first header of that name, or empty.
  std::string_view header(std::string_view name) const;
  std::size_t header_count(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HeaderList headers = {};
  std::string body = {};
};

bool equals_without_case(std::string_view a, std::string_view b);

// The reply to one request.  Confined to its connection's thread, where the handler is called and
// every callback runs; post() and gone() alone may be used from elsewhere.
class Exchange {
 public:
  Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;
  // Either reply(), or begin_stream() with write() and end_stream(); once.
  virtual void reply(HttpResponse response) = 0;
  virtual void begin_stream(HttpResponse head) = 0;  // its body is sent first
  virtual void write(std::string_view bytes) = 0;
  virtual void end_stream() = 0;
  // Bytes written and not yet taken by the network, and one call when they are all gone.  Once the
  // client has left there are none, and what is written goes nowhere.
  virtual std::size_t unsent_bytes() const = 0;
  virtual void on_drained(std::function<void()> callback) = 0;
  // Calls `callback` again and again until the reply has ended.
  virtual void every(std::chrono::milliseconds interval, std::function<void()> callback) = 0;

  // Runs `task` on the connection's thread, also when the client has left.
  virtual void post(std::function<void()> task) = 0;
  // Requested when the client has left.
  virtual std::stop_token gone() const = 0;
};

// What the network part calls.  Both are called on connections' threads, several at a time.
class Handler {
 public:
  Handler() = default;
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  virtual ~Handler() = default;

  // Looks at a request's head before its body is read: an answer refuses it.
  virtual std::optional<HttpResponse> refuse(const HttpRequest& head) = 0;
  // Serves a whole request; must not throw.
  virtual void handle(const std::shared_ptr<Exchange>& exchange) = 0;
  // The answer to what is no HTTP, or too much of it.
  virtual HttpResponse protocol_error(int status,
                                      std::string_view message,
                                      std::string_view path) = 0;
};

}  // namespace ds4::server
