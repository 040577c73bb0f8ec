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

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "server/http_outbound.h"
#include "server/http_shared.h"

namespace ds4::server {

using PlainStream = boost::asio::ip::tcp::socket;
using TlsStream = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;

// One connection: reads a request, has it served, and again.  Everything runs on the strand of its
// socket.  Included by http_connection.cpp alone.
template <class Stream>
class Connection final : public Exchange,
                         public Closable,
                         public std::enable_shared_from_this<Connection<Stream>> {
 public:
  template <class... Args>
  explicit Connection(std::shared_ptr<HttpShared> shared,
                      boost::asio::ip::tcp::socket socket,
                      Args&... args);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() override;

  void start();
  void close_when_idle() override;

  // --- Exchange ---
  const HttpRequest& request() const override { return request_; }
  void reply(HttpResponse response) override;
  void begin_stream(HttpResponse head) override;
  void write(std::string_view bytes) override;
  void end_stream() override;
  std::size_t unsent_bytes() const override;
  void on_drained(std::function<void()> callback) override;
  void every(std::chrono::milliseconds interval, std::function<void()> callback) override;
  void post(std::function<void()> task) override;
  std::stop_token gone() const override { return gone_.get_token(); }

 private:
  using Error = boost::system::error_code;
  enum class State {
    kIdle,       // between requests
    kReading,    // a request
    kServing,    // it, or the reply is on its way
    kLingering,  // the last reply is out: what still comes is thrown away until the client closes
    kClosed,
  };

  template <class Callback>
  void guarded(Callback&& callback);
  template <class Callback>
  auto on_strand(Callback callback);

  void await_request();
  void read_some();
  void on_read_some(const Error& error, std::size_t bytes);
  void read_head();
  void on_head(const Error& error);
  void fill_request();
  bool accept_body();
  void read_body();
  void on_body(const Error& error);
  bool count_body();
  void serve();
  void watch();
  void refuse(int status, std::string_view message);

  void send(std::string bytes);
  void send_more();
  void on_sent(const Error& error, std::size_t bytes);
  void end_reply();

  void set_deadline(std::chrono::milliseconds time);
  void on_deadline();
  void linger();
  void discard();
  void close();
  void release_body();

  std::shared_ptr<HttpShared> shared_;
  Stream stream_;
  boost::asio::steady_timer deadline_;
  boost::asio::steady_timer ticker_;
  boost::asio::steady_timer watcher_;
  std::string peer_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  State state_ = State::kIdle;
  bool reading_ = false;     // a read of the connection is under way
  bool tls_ending_ = false;  // the farewell of TLS is under way
  HttpRequest request_;
  std::size_t counted_bytes_ = 0;  // in HttpShared::body_bytes
  std::stop_source gone_;
  bool keep_alive_ = false;
  bool knows_chunks_ = false;
  bool chunked_ = false;
  bool ended_ = false;  // the reply is written, perhaps not sent
  Outbound outbound_;
  std::size_t taken_bytes_ = 0;  // by the client since the write deadline was set
  bool writing_ = false;
  std::function<void()> drained_;
  std::function<void()> tick_;
  std::chrono::milliseconds tick_interval_{0};
};

template <>
void Connection<PlainStream>::start();
template <>
void Connection<TlsStream>::start();
template <>
void Connection<PlainStream>::linger();
template <>
void Connection<TlsStream>::linger();

}  // namespace ds4::server
