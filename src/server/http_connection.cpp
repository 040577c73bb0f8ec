#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <fmt/format.h>

#include "server/http_shared.h"

namespace ds4::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::size_t kReadBytes = 16 * 1024;

using PlainStream = tcp::socket;
using TlsStream = asio::ssl::stream<tcp::socket>;

tcp::socket& socket_of(PlainStream& stream) {
  return stream;
}
tcp::socket& socket_of(TlsStream& stream) {
  return stream.next_layer();
}

std::string head_text(const HttpResponse& response, std::string_view framing, bool keep_alive) {
  std::string text = fmt::format("HTTP/1.1 {} {}\r\n", response.status,
                                 std::string_view(http::obsolete_reason(
                                     http::int_to_status(static_cast<unsigned>(response.status)))));
  if (!response.content_type.empty())
    text += fmt::format("Content-Type: {}\r\n", response.content_type);
  for (const auto& [name, value] : response.headers)
    text += fmt::format("{}: {}\r\n", name, value);
  text += fmt::format("X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n{}{}\r\n",
                      framing, keep_alive ? "" : "Connection: close\r\n");
  return text;
}

// One connection: reads a request, has it served, and again.  Everything runs on the strand of its
// socket.
template <class Stream>
class Connection final : public Exchange, public std::enable_shared_from_this<Connection<Stream>> {
 public:
  template <class... Args>
  explicit Connection(std::shared_ptr<HttpShared> shared, tcp::socket socket, Args&... args)
      : shared_(std::move(shared)),
        stream_(std::move(socket), args...),
        deadline_(stream_.get_executor()),
        ticker_(stream_.get_executor()) {
    ++shared_->connections;
    error_code ignored;
    const auto endpoint = socket_of(stream_).remote_endpoint(ignored);
    peer_ = endpoint.address().to_string();
    socket_of(stream_).set_option(tcp::no_delay(true), ignored);
  }
  ~Connection() override {
    release_body();
    --shared_->connections;
  }

  void start();

  // --- Exchange ---
  const HttpRequest& request() const override { return request_; }
  void reply(HttpResponse response) override;
  void begin_stream(HttpResponse head) override;
  void write(std::string_view bytes) override;
  void end_stream() override;
  std::size_t unsent_bytes() const override { return unsent_; }
  void on_drained(std::function<void()> callback) override { drained_ = std::move(callback); }
  void every(std::chrono::milliseconds interval, std::function<void()> callback) override;
  void post(std::function<void()> task) override;
  std::stop_token gone() const override { return gone_.get_token(); }

 private:
  enum class State { kIdle, kReading, kServing, kClosed };

  void await_request();
  void read_some();
  void on_read_some(const error_code& error, std::size_t bytes);
  void read_head();
  void on_head(const error_code& error);
  void fill_request();
  bool accept_body();
  void on_body(const error_code& error);
  void serve();
  void refuse(int status, std::string_view message);
  void send(std::string bytes);
  void send_more();
  void on_sent(const error_code& error, std::size_t bytes);
  void end_reply();
  void set_deadline(std::chrono::milliseconds time);
  void close();
  void release_body();

  std::shared_ptr<HttpShared> shared_;
  Stream stream_;
  asio::steady_timer deadline_;
  asio::steady_timer ticker_;
  std::string peer_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  State state_ = State::kIdle;
  bool reading_ = false;  // a read of the connection is under way
  HttpRequest request_;
  std::size_t counted_bytes_ = 0;  // in HttpShared::body_bytes
  std::stop_source gone_;
  bool keep_alive_ = false;
  bool chunked_ = false;
  bool ended_ = false;  // the reply is written, perhaps not sent
  std::deque<std::string> outbound_;
  std::size_t sent_of_front_ = 0;
  std::size_t unsent_ = 0;
  bool writing_ = false;
  std::function<void()> drained_;
  std::function<void()> tick_;
  std::chrono::milliseconds tick_interval_{0};
};

template <>
void Connection<PlainStream>::start() {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] { self->await_request(); });
}

template <>
void Connection<TlsStream>::start() {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
    self->set_deadline(self->shared_->options.header_timeout);
    self->stream_.async_handshake(TlsStream::server, [self](const error_code& error) {
      if (error) return self->close();
      self->await_request();
    });
  });
}

template <class Stream>
void Connection<Stream>::set_deadline(std::chrono::milliseconds time) {
  deadline_.expires_after(time);
  deadline_.async_wait([weak = this->weak_from_this()](const error_code& error) {
    if (error) return;
    if (const auto self = weak.lock()) {
      // A timer that was set anew after it had fired must not close.
      if (self->deadline_.expiry() > std::chrono::steady_clock::now()) return;
      if (self->state_ == State::kReading && !self->ended_) {
        self->refuse(408, "the request did not arrive in time");
      } else {
        self->close();
      }
    }
  });
}

template <class Stream>
void Connection<Stream>::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  gone_.request_stop();
  error_code ignored;
  deadline_.cancel();
  ticker_.cancel();
  socket_of(stream_).shutdown(tcp::socket::shutdown_both, ignored);
  socket_of(stream_).close(ignored);
  tick_ = nullptr;
  drained_ = nullptr;
}

template <class Stream>
void Connection<Stream>::release_body() {
  shared_->body_bytes -= std::exchange(counted_bytes_, 0);
}

// --- reading ---

template <class Stream>
void Connection<Stream>::await_request() {
  if (state_ == State::kClosed) return;
  if (shared_->stopping) return close();
  state_ = State::kIdle;
  gone_ = std::stop_source();
  ended_ = false;
  chunked_ = false;
  tick_ = nullptr;
  drained_ = nullptr;
  request_ = HttpRequest{};
  release_body();
  if (buffer_.size() > 0) return read_head();
  set_deadline(shared_->options.idle_timeout);
  if (!reading_) read_some();
}

// Reads what comes next: the first bytes of a request, or, while one is served, the client's
// leaving or what it sends ahead.
template <class Stream>
void Connection<Stream>::read_some() {
  reading_ = true;
  stream_.async_read_some(
      buffer_.prepare(kReadBytes),
      [self = this->shared_from_this()](const error_code& error, std::size_t bytes) {
        self->reading_ = false;
        self->on_read_some(error, bytes);
      });
}

template <class Stream>
void Connection<Stream>::on_read_some(const error_code& error, std::size_t bytes) {
  if (state_ == State::kClosed) return;
  if (error) return close();
  buffer_.commit(bytes);
  // Bytes sent ahead are the next request's: they wait, and so does the watch for the client's
  // leaving, which its next write will tell as well.
  if (state_ == State::kIdle) read_head();
}

template <class Stream>
void Connection<Stream>::read_head() {
  state_ = State::kReading;
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(shared_->options.header_bytes_max));
  parser_->body_limit(shared_->options.body_bytes_max);
  set_deadline(shared_->options.header_timeout);
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = this->shared_from_this()](const error_code& error, std::size_t) {
                            self->on_head(error);
                          });
}

template <class Stream>
void Connection<Stream>::fill_request() {
  const auto& message = parser_->get();
  request_.method = std::string(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  const std::size_t question = target.find('?');
  request_.path = std::string(target.substr(0, question));
  if (question != std::string_view::npos) request_.query = std::string(target.substr(question + 1));
  for (const auto& field : message)
    request_.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  request_.peer = peer_;
  keep_alive_ = message.keep_alive() && message.version() == 11 && !shared_->stopping;
}

template <class Stream>
void Connection<Stream>::on_head(const error_code& error) {
  if (state_ != State::kReading) return;
  if (error == http::error::header_limit) return refuse(431, "the request's head is too large");
  if (error == http::error::body_limit) return refuse(413, "the request's body is too large");
  if (error == http::error::end_of_stream || error == asio::error::eof ||
      error == asio::error::connection_reset || error == asio::error::operation_aborted)
    return close();
  if (error.category() == http::make_error_code(http::error::bad_method).category() && error)
    return refuse(400, fmt::format("malformed HTTP: {}", error.message()));
  if (error) return close();
  fill_request();
  if (!accept_body()) return;
  set_deadline(shared_->options.body_timeout);
  if (equals_without_case(request_.header("expect"), "100-continue"))
    send("HTTP/1.1 100 Continue\r\n\r\n");
  http::async_read(stream_, buffer_, *parser_,
                   [self = this->shared_from_this()](const error_code& body_error, std::size_t) {
                     self->on_body(body_error);
                   });
}

// Decides by the head alone whether the body may come.
template <class Stream>
bool Connection<Stream>::accept_body() {
  const auto& message = parser_->get();
  if (message.version() != 11 && message.version() != 10) {
    refuse(505, "this server speaks HTTP/1.1");
    return false;
  }
  const std::string_view coding = request_.header("transfer-encoding");
  if (request_.header_count("transfer-encoding") > 1 ||
      (!coding.empty() && !equals_without_case(coding, "chunked"))) {
    refuse(501, "the transfer coding is not supported; send a Content-Length or chunked");
    return false;
  }
  if (request_.header_count("host") > 1 || request_.header_count("content-length") > 1 ||
      (!coding.empty() && request_.header_count("content-length") > 0)) {
    refuse(400, "malformed HTTP: conflicting headers");
    return false;
  }
  if (request_.method == "POST" && coding.empty() && !parser_->content_length()) {
    refuse(411, "a POST needs a Content-Length");
    return false;
  }
  if (auto refusal = shared_->handler.refuse(request_)) {
    // The body stays unread, so this connection cannot go on.
    keep_alive_ = keep_alive_ && !parser_->chunked() && parser_->content_length().value_or(0) == 0;
    ended_ = false;
    reply(std::move(*refusal));
    return false;
  }
  // Chunked bodies are counted as the largest they may become.
  counted_bytes_ =
      parser_->chunked() ? shared_->options.body_bytes_max : parser_->content_length().value_or(0);
  if ((shared_->body_bytes += counted_bytes_) > shared_->options.all_bodies_bytes_max) {
    refuse(503, "too many request bodies at once; try again later");
    return false;
  }
  return true;
}

template <class Stream>
void Connection<Stream>::on_body(const error_code& error) {
  if (state_ != State::kReading) return;
  if (error == http::error::body_limit) return refuse(413, "the request's body is too large");
  if (error.category() == http::make_error_code(http::error::bad_method).category() && error &&
      error != http::error::partial_message && error != http::error::end_of_stream)
    return refuse(400, fmt::format("malformed HTTP: {}", error.message()));
  if (error) return close();
  request_.body = std::move(parser_->get().body());
  parser_.reset();
  if (counted_bytes_ > request_.body.size()) {
    shared_->body_bytes -= counted_bytes_ - request_.body.size();
    counted_bytes_ = request_.body.size();
  }
  serve();
}

template <class Stream>
void Connection<Stream>::serve() {
  state_ = State::kServing;
  deadline_.cancel();
  if (buffer_.size() == 0) read_some();
  shared_->handler.handle(this->shared_from_this());
}

template <class Stream>
void Connection<Stream>::refuse(int status, std::string_view message) {
  if (state_ == State::kClosed || ended_) return;
  keep_alive_ = false;
  reply(shared_->handler.protocol_error(status, message, request_.path));
}

// --- writing ---

template <class Stream>
void Connection<Stream>::reply(HttpResponse response) {
  if (state_ == State::kClosed || ended_) return;
  state_ = State::kServing;
  const bool bodiless = response.status == 204;
  if (bodiless) response.content_type.clear();
  std::string text = head_text(
      response,
      bodiless ? std::string() : fmt::format("Content-Length: {}\r\n", response.body.size()),
      keep_alive_);
  text += response.body;
  send(std::move(text));
  end_reply();
}

template <class Stream>
void Connection<Stream>::begin_stream(HttpResponse head) {
  if (state_ == State::kClosed || ended_) return;
  // HTTP/1.0 knows no chunks: the end of the connection ends the body.
  chunked_ = keep_alive_;
  send(head_text(head, chunked_ ? "Transfer-Encoding: chunked\r\n" : "", keep_alive_));
  if (!head.body.empty()) write(head.body);
}

template <class Stream>
void Connection<Stream>::write(std::string_view bytes) {
  if (state_ == State::kClosed || ended_ || bytes.empty()) return;
  send(chunked_ ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : std::string(bytes));
}

template <class Stream>
void Connection<Stream>::end_stream() {
  if (state_ == State::kClosed || ended_) return;
  if (chunked_) send("0\r\n\r\n");
  end_reply();
}

template <class Stream>
void Connection<Stream>::end_reply() {
  ended_ = true;
  tick_ = nullptr;
  ticker_.cancel();
  drained_ = nullptr;
  if (outbound_.empty()) on_sent({}, 0);
}

template <class Stream>
void Connection<Stream>::send(std::string bytes) {
  if (state_ == State::kClosed) return;
  unsent_ += bytes.size();
  outbound_.push_back(std::move(bytes));
  if (!writing_) send_more();
}

template <class Stream>
void Connection<Stream>::send_more() {
  writing_ = true;
  const std::string& front = outbound_.front();
  // While a request is read its own deadline holds.
  if (state_ == State::kServing) set_deadline(shared_->options.write_timeout);
  stream_.async_write_some(
      asio::buffer(front.data() + sent_of_front_, front.size() - sent_of_front_),
      [self = this->shared_from_this()](const error_code& error, std::size_t bytes) {
        self->writing_ = false;
        self->on_sent(error, bytes);
      });
}

template <class Stream>
void Connection<Stream>::on_sent(const error_code& error, std::size_t bytes) {
  if (state_ == State::kClosed) return;
  if (error) return close();
  unsent_ -= bytes;
  sent_of_front_ += bytes;
  if (!outbound_.empty() && sent_of_front_ == outbound_.front().size()) {
    outbound_.pop_front();
    sent_of_front_ = 0;
  }
  if (!outbound_.empty()) return send_more();
  if (state_ == State::kServing) deadline_.cancel();
  if (ended_) {
    if (!keep_alive_) return close();
    return await_request();
  }
  if (drained_) drained_();
}

template <class Stream>
void Connection<Stream>::every(std::chrono::milliseconds interval, std::function<void()> callback) {
  if (state_ == State::kClosed || ended_) return;
  tick_ = std::move(callback);
  tick_interval_ = interval;
  ticker_.expires_after(interval);
  ticker_.async_wait([weak = this->weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || !self || !self->tick_) return;
    const std::function<void()> tick = self->tick_;
    tick();
    if (self->tick_) self->every(self->tick_interval_, tick);
  });
}

template <class Stream>
void Connection<Stream>::post(std::function<void()> task) {
  asio::post(stream_.get_executor(), [self = this->shared_from_this(), task = std::move(task)] {
    if (self->state_ != State::kClosed) task();
  });
}

}  // namespace

void serve_plain(std::shared_ptr<HttpShared> shared, tcp::socket socket) {
  std::make_shared<Connection<PlainStream>>(std::move(shared), std::move(socket))->start();
}

void serve_tls(std::shared_ptr<HttpShared> shared,
               tcp::socket socket,
               asio::ssl::context& context) {
  std::make_shared<Connection<TlsStream>>(std::move(shared), std::move(socket), context)->start();
}

}  // namespace ds4::server
