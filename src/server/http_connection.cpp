#include "server/http_connection.h"

#include <exception>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <fmt/format.h>
#include <poll.h>

#include "server/http_framing.h"

namespace ds4::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::size_t kReadBytes = std::size_t{16} << 10;
// What the buffer holds beyond a head: the beginning of the body, or requests sent ahead.
constexpr std::size_t kBufferedBytesMax = std::size_t{64} << 10;
// A client that is behind has to take this much within the write timeout.
constexpr std::size_t kTakenBytesMin = std::size_t{64} << 10;
// How long a client may take to read the last reply before the connection is cut.
constexpr std::chrono::milliseconds kLingerTime{2000};
// How often a client that has sent ahead is looked after.
constexpr std::chrono::milliseconds kWatchInterval{250};

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

// Of the parser, rather than of the network.
bool is_http_error(const error_code& error) {
  return error && error.category() == http::make_error_code(http::error::bad_method).category();
}

// Whether the peer has closed its side, whatever bytes wait before that.
bool has_left(tcp::socket& socket) {
  pollfd state{.fd = socket.native_handle(), .events = POLLRDHUP, .revents = 0};
  return ::poll(&state, 1, 0) > 0;
}

}  // namespace

template <class Stream>
template <class... Args>
Connection<Stream>::Connection(std::shared_ptr<HttpShared> shared,
                               tcp::socket socket,
                               Args&... args)
    : shared_(std::move(shared)),
      stream_(std::move(socket), args...),
      deadline_(stream_.get_executor()),
      ticker_(stream_.get_executor()),
      watcher_(stream_.get_executor()),
      buffer_(shared_->options.header_bytes_max + kBufferedBytesMax) {
  ++shared_->connections;
  error_code ignored;
  const auto endpoint = socket_of(stream_).remote_endpoint(ignored);
  peer_ = endpoint.address().to_string();
  socket_of(stream_).set_option(tcp::no_delay(true), ignored);
}

template <class Stream>
Connection<Stream>::~Connection() {
  shared_->list.remove(this);
  release_body();
  --shared_->connections;
}

// Nothing that goes wrong with one connection may end the thread that serves the others.
template <class Stream>
template <class Callback>
void Connection<Stream>::guarded(Callback&& callback) {
  try {
    callback();
  } catch (const std::exception& error) {
    log(shared_->options.log, LogLevel::kError,
        fmt::format("a connection failed: {}", error.what()));
    close();
  }
}

// A completion handler that keeps the connection alive and is guarded.
template <class Stream>
template <class Callback>
auto Connection<Stream>::on_strand(Callback callback) {
  return [self = this->shared_from_this(), callback = std::move(callback)](const error_code& error,
                                                                           std::size_t bytes = 0) {
    self->guarded([&] { callback(*self, error, bytes); });
  };
}

template <>
void Connection<PlainStream>::start() {
  shared_->list.add(shared_from_this());
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] { self->await_request(); });
}

template <>
void Connection<TlsStream>::start() {
  shared_->list.add(shared_from_this());
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
    self->set_deadline(self->shared_->options.header_timeout);
    self->stream_.async_handshake(
        TlsStream::server,
        self->on_strand([](Connection& connection, const error_code& error, std::size_t) {
          if (error) return connection.close();
          connection.await_request();
        }));
  });
}

// --- deadlines and ends ---

template <class Stream>
void Connection<Stream>::set_deadline(std::chrono::milliseconds time) {
  deadline_.expires_after(time);
  deadline_.async_wait([weak = this->weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    // A timer that was set anew after it had fired must not close.
    if (error || !self || self->deadline_.expiry() > std::chrono::steady_clock::now()) return;
    self->guarded([&] { self->on_deadline(); });
  });
}

template <class Stream>
void Connection<Stream>::on_deadline() {
  if (state_ == State::kReading) return refuse(408, "the request did not arrive in time");
  close();
}

template <class Stream>
void Connection<Stream>::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  gone_.request_stop();
  error_code ignored;
  deadline_.cancel();
  ticker_.cancel();
  watcher_.cancel();
  socket_of(stream_).shutdown(tcp::socket::shutdown_both, ignored);
  socket_of(stream_).close(ignored);
  tick_ = nullptr;
  if (!writing_) outbound_.clear();
  // Nobody waits for the network any more.
  if (auto drained = std::exchange(drained_, nullptr)) post(std::move(drained));
}

template <class Stream>
void Connection<Stream>::close_when_idle() {
  asio::post(stream_.get_executor(), [weak = this->weak_from_this()] {
    const auto self = weak.lock();
    if (self && self->state_ == State::kIdle) self->close();
  });
}

// Says that nothing follows and waits for the client to close.  To close at once, with bytes of its
// unread, would reset the connection, and the client might never see the reply.
template <>
void Connection<PlainStream>::linger() {
  state_ = State::kLingering;
  error_code ignored;
  stream_.shutdown(tcp::socket::shutdown_send, ignored);
  set_deadline(kLingerTime);
  discard();
}

template <>
void Connection<TlsStream>::linger() {
  state_ = State::kLingering;
  tls_ending_ = true;
  set_deadline(kLingerTime);
  stream_.async_shutdown(on_strand([](Connection& connection, const error_code&, std::size_t) {
    connection.tls_ending_ = false;
    error_code ignored;
    socket_of(connection.stream_).shutdown(tcp::socket::shutdown_send, ignored);
    connection.discard();
  }));
}

template <class Stream>
void Connection<Stream>::discard() {
  if (state_ != State::kLingering || reading_ || tls_ending_) return;
  reading_ = true;
  buffer_.clear();
  socket_of(stream_).async_read_some(
      buffer_.prepare(kReadBytes),
      on_strand([](Connection& connection, const error_code& error, std::size_t) {
        connection.reading_ = false;
        if (error) return connection.close();
        connection.discard();
      }));
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
  watcher_.cancel();
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
      on_strand([](Connection& connection, const error_code& error, std::size_t bytes) {
        connection.reading_ = false;
        connection.on_read_some(error, bytes);
      }));
}

template <class Stream>
void Connection<Stream>::on_read_some(const error_code& error, std::size_t bytes) {
  if (state_ == State::kLingering) return discard();
  if (state_ == State::kClosed) return;
  if (error) {
    // A whole reply is still sent to a client that closed its side alone.
    if (!ended_ || outbound_.empty()) return close();
    keep_alive_ = false;
    return;
  }
  buffer_.commit(bytes);
  // Bytes sent ahead are the next request's: they wait.
  if (state_ == State::kIdle) return read_head();
  watch();
}

// Looks after a client that has sent ahead, and whose leaving no read would tell therefore.
template <class Stream>
void Connection<Stream>::watch() {
  watcher_.expires_after(kWatchInterval);
  watcher_.async_wait([weak = this->weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->state_ != State::kServing || self->ended_) return;
    self->guarded([&] {
      if (has_left(socket_of(self->stream_))) return self->close();
      self->watch();
    });
  });
}

template <class Stream>
void Connection<Stream>::read_head() {
  state_ = State::kReading;
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(shared_->options.header_bytes_max));
  parser_->body_limit(shared_->options.body_bytes_max);
  set_deadline(shared_->options.header_timeout);
  reading_ = true;
  http::async_read_header(
      stream_, buffer_, *parser_,
      on_strand([](Connection& connection, const error_code& error, std::size_t) {
        connection.reading_ = false;
        connection.on_head(error);
      }));
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
  knows_chunks_ = message.version() == 11;
  keep_alive_ = message.keep_alive() && knows_chunks_ && !shared_->stopping;
}

template <class Stream>
void Connection<Stream>::on_head(const error_code& error) {
  if (state_ == State::kLingering) return discard();
  if (state_ != State::kReading) return;
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    return refuse(431, "the request's head is too large");
  if (error == http::error::body_limit) return refuse(413, "the request's body is too large");
  if (error == http::error::end_of_stream || error == http::error::partial_message) return close();
  if (is_http_error(error)) return refuse(400, fmt::format("malformed HTTP: {}", error.message()));
  if (error) return close();
  fill_request();
  if (!accept_body()) return;
  set_deadline(shared_->options.body_timeout);
  if (knows_chunks_ && equals_without_case(request_.header("expect"), "100-continue"))
    send("HTTP/1.1 100 Continue\r\n\r\n");
  parser_->eager(true);
  read_body();
}

// Decides by the head alone whether the body may come.
template <class Stream>
bool Connection<Stream>::accept_body() {
  if (const auto problem = framing_problem(request_, parser_->get().version())) {
    refuse(problem->status, problem->message);
    return false;
  }
  if (auto refusal = shared_->handler.refuse(request_)) {
    // The body stays unread, so this connection cannot go on.
    keep_alive_ = keep_alive_ && !parser_->chunked() && parser_->content_length().value_or(0) == 0;
    reply(std::move(*refusal));
    return false;
  }
  return true;
}

template <class Stream>
void Connection<Stream>::read_body() {
  if (parser_->is_done()) return serve();
  reading_ = true;
  http::async_read_some(stream_, buffer_, *parser_,
                        on_strand([](Connection& connection, const error_code& error, std::size_t) {
                          connection.reading_ = false;
                          connection.on_body(error);
                        }));
}

template <class Stream>
void Connection<Stream>::on_body(const error_code& error) {
  if (state_ == State::kLingering) return discard();
  if (state_ != State::kReading) return;
  if (error == http::error::body_limit) return refuse(413, "the request's body is too large");
  if (error == http::error::end_of_stream || error == http::error::partial_message) return close();
  if (is_http_error(error)) return refuse(400, fmt::format("malformed HTTP: {}", error.message()));
  if (error) return close();
  if (!count_body()) return refuse(503, "too many request bodies at once; try again later");
  read_body();
}

// Counts what has come of the body; false when all bodies together are too much.
template <class Stream>
bool Connection<Stream>::count_body() {
  const std::size_t grown = parser_->get().body().size() - counted_bytes_;
  counted_bytes_ += grown;
  return (shared_->body_bytes += grown) <= shared_->options.all_bodies_bytes_max;
}

template <class Stream>
void Connection<Stream>::serve() {
  request_.body = std::move(parser_->get().body());
  parser_.reset();
  state_ = State::kServing;
  deadline_.cancel();
  if (buffer_.size() == 0) {
    read_some();
  } else {
    watch();
  }
  shared_->handler.handle(this->shared_from_this());
}

template <class Stream>
void Connection<Stream>::refuse(int status, std::string_view message) {
  if (ended_) return;
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
  if (request_.method != "HEAD") text += response.body;
  send(std::move(text));
  end_reply();
}

template <class Stream>
void Connection<Stream>::begin_stream(HttpResponse head) {
  if (state_ == State::kClosed || ended_) return;
  // HTTP/1.0 knows no chunks: the end of the connection ends the body.
  chunked_ = knows_chunks_;
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
  outbound_.push(std::move(bytes));
  if (writing_) return;
  taken_bytes_ = 0;
  // While a request is read its own deadline holds.
  if (state_ == State::kServing) set_deadline(shared_->options.write_timeout);
  send_more();
}

template <class Stream>
void Connection<Stream>::send_more() {
  writing_ = true;
  const std::string_view front = outbound_.front();
  stream_.async_write_some(
      asio::buffer(front.data(), front.size()),
      on_strand([](Connection& connection, const error_code& error, std::size_t bytes) {
        connection.writing_ = false;
        connection.on_sent(error, bytes);
      }));
}

template <class Stream>
void Connection<Stream>::on_sent(const error_code& error, std::size_t bytes) {
  if (state_ == State::kClosed) return outbound_.clear();
  if (error) return close();
  outbound_.pop(bytes);
  taken_bytes_ += bytes;
  if (!outbound_.empty()) {
    // A byte now and then is not enough: the answer behind it holds a slot.
    if (taken_bytes_ >= kTakenBytesMin && state_ == State::kServing) {
      taken_bytes_ = 0;
      set_deadline(shared_->options.write_timeout);
    }
    return send_more();
  }
  if (state_ == State::kServing) deadline_.cancel();
  if (ended_) {
    if (!keep_alive_ || shared_->stopping) return linger();
    return await_request();
  }
  if (const auto drained = std::exchange(drained_, nullptr)) drained();
}

template <class Stream>
std::size_t Connection<Stream>::unsent_bytes() const {
  return state_ == State::kClosed ? 0 : outbound_.unsent_bytes();
}

template <class Stream>
void Connection<Stream>::on_drained(std::function<void()> callback) {
  if (state_ == State::kClosed) return post(std::move(callback));
  drained_ = std::move(callback);
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
    self->guarded([&] {
      const std::function<void()> tick = self->tick_;
      tick();
      if (self->tick_) self->every(self->tick_interval_, tick);
    });
  });
}

template <class Stream>
void Connection<Stream>::post(std::function<void()> task) {
  asio::post(stream_.get_executor(),
             [self = this->shared_from_this(), task = std::move(task)] { self->guarded(task); });
}

void serve_plain(std::shared_ptr<HttpShared> shared, tcp::socket socket) {
  std::make_shared<Connection<PlainStream>>(std::move(shared), std::move(socket))->start();
}

void serve_tls(std::shared_ptr<HttpShared> shared,
               tcp::socket socket,
               asio::ssl::context& context) {
  std::make_shared<Connection<TlsStream>>(std::move(shared), std::move(socket), context)->start();
}

}  // namespace ds4::server
