#include "server/http_server.h"

#include <array>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "server/http_shared.h"

namespace ds4::server {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr int kBacklog = 1024;
// After a failed accept, e.g. for want of descriptors, and between two words about it.
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::chrono::seconds kAcceptWarningPause{60};

std::string address_text(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", address, endpoint.port())
                                    : fmt::format("{}:{}", address, endpoint.port());
}

}  // namespace

void ConnectionList::add(const std::shared_ptr<Closable>& connection) {
  const std::lock_guard lock(mutex_);
  open_.emplace(connection.get(), connection);
}

void ConnectionList::remove(const Closable* connection) {
  const std::lock_guard lock(mutex_);
  open_.erase(connection);
}

void ConnectionList::close_idle() {
  std::vector<std::shared_ptr<Closable>> open;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [address, weak] : open_)
      if (auto connection = weak.lock()) open.push_back(std::move(connection));
  }
  for (const auto& connection : open)
    connection->close_when_idle();
}

struct HttpServer::Impl {
  Impl(HttpOptions options, Handler& handler)
      : shared(std::make_shared<HttpShared>(std::move(options), handler)),
        io(static_cast<int>(shared->options.thread_count)) {}

  struct Listener {
    Listener(Impl& owner, const tcp::endpoint& endpoint)
        : strand(asio::make_strand(owner.io)),
          acceptor(strand),
          pause(strand) {
      acceptor.open(endpoint.protocol());
      acceptor.set_option(tcp::acceptor::reuse_address(true));
      if (endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(true));
      acceptor.bind(endpoint);
      acceptor.listen(kBacklog);
    }
    asio::strand<asio::io_context::executor_type> strand;
    tcp::acceptor acceptor;
    asio::steady_timer pause;
    std::chrono::steady_clock::time_point next_warning{};
  };

  void load_tls();
  void listen();
  void listen_on(const std::string& host, std::string& problem);
  void accept(Listener& listener);
  void warn(Listener& listener, const error_code& error);
  void serve(tcp::socket socket);
  void run();
  void turn_away(tcp::socket socket);

  std::shared_ptr<HttpShared> shared;
  asio::io_context io;
  asio::executor_work_guard<asio::io_context::executor_type> work{asio::make_work_guard(io)};
  std::unique_ptr<asio::ssl::context> tls;
  std::vector<std::unique_ptr<Listener>> listeners;
  std::vector<std::string> addresses;
  std::uint16_t port = 0;
  std::vector<std::jthread> threads;
};

void HttpServer::Impl::load_tls() {
  const HttpOptions& options = shared->options;
  if (options.tls_certificate.empty() && options.tls_key.empty()) return;
  if (options.tls_certificate.empty() || options.tls_key.empty())
    throw Error(ErrorCode::kInvalidArgument, "TLS needs both a certificate and a key");
  tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  tls->set_options(asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1);
  error_code error;
  tls->use_certificate_chain_file(options.tls_certificate.string(), error);
  if (error) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the certificate {} cannot be used: {}",
                            options.tls_certificate.string(), error.message()));
  }
  tls->use_private_key_file(options.tls_key.string(), asio::ssl::context::pem, error);
  if (error) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("the key {} cannot be used: {}", options.tls_key.string(), error.message()));
  }
}

void HttpServer::Impl::listen() {
  std::string problem;
  for (const std::string& host : shared->options.hosts)
    listen_on(host, problem);
  if (listeners.empty())
    throw Error(ErrorCode::kIo, problem.empty() ? "there is no address to listen on" : problem);
}

void HttpServer::Impl::listen_on(const std::string& host, std::string& problem) {
  error_code error;
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(host, std::to_string(shared->options.port),
                       tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--host {} is no address of this machine: {}", host, error.message()));
  }
  for (const auto& entry : found) {
    tcp::endpoint endpoint = entry.endpoint();
    if (shared->options.loopback_only && !endpoint.address().is_loopback()) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} can be reached by others: set keys with --api-key-file, or allow "
                              "everyone with --insecure-no-auth",
                              host));
    }
    if (port != 0) endpoint.port(port);  // all on the port that was free for the first
    try {
      listeners.push_back(std::make_unique<Listener>(*this, endpoint));
    } catch (const boost::system::system_error& failure) {
      // A name may have an address that this machine lacks, such as ::1 without IPv6.
      problem =
          fmt::format("cannot listen on {}: {}", address_text(endpoint), failure.code().message());
      if (failure.code() == asio::error::address_in_use) throw Error(ErrorCode::kIo, problem);
      continue;
    }
    const tcp::endpoint bound = listeners.back()->acceptor.local_endpoint();
    port = bound.port();
    addresses.push_back(address_text(bound));
  }
}

void HttpServer::Impl::accept(Listener& listener) {
  listener.acceptor.async_accept(
      asio::make_strand(io), [this, &listener](const error_code& error, tcp::socket socket) {
        if (shared->stopping || error == asio::error::operation_aborted) return;
        if (!error) {
          serve(std::move(socket));
          return accept(listener);
        }
        warn(listener, error);
        listener.pause.expires_after(kAcceptPause);
        listener.pause.async_wait([this, &listener](const error_code& cancelled) {
          if (!cancelled) accept(listener);
        });
      });
}

void HttpServer::Impl::warn(Listener& listener, const error_code& error) {
  const auto now = std::chrono::steady_clock::now();
  if (now < listener.next_warning) return;
  listener.next_warning = now + kAcceptWarningPause;
  log(shared->options.log, LogLevel::kWarning,
      fmt::format("cannot accept connections: {}", error.message()));
}

// Connections catch what goes wrong with them; what is left must not end the thread either.
void HttpServer::Impl::run() {
  for (;;) {
    try {
      io.run();
      return;
    } catch (const std::exception& error) {
      log(shared->options.log, LogLevel::kError,
          fmt::format("a network thread failed: {}", error.what()));
    }
  }
}

void HttpServer::Impl::serve(tcp::socket socket) {
  if (shared->connections >= shared->options.connections_max) return turn_away(std::move(socket));
  if (tls) {
    serve_tls(shared, std::move(socket), *tls);
  } else {
    serve_plain(shared, std::move(socket));
  }
}

void HttpServer::Impl::turn_away(tcp::socket socket) {
  if (tls) return;
  error_code ignored;
  socket.non_blocking(true, ignored);
  static constexpr std::string_view kBusy =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 5\r\n"
      "Connection: close\r\n\r\n";
  socket.write_some(asio::buffer(kBusy.data(), kBusy.size()), ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
  // What is there of the request; left unread it would reset the connection before the reply.
  std::array<char, 4096> unread;
  while (socket.read_some(asio::buffer(unread), ignored) == unread.size() && !ignored) {
  }
}

void HttpServer::check(const HttpOptions& options) {
  // Never called: nothing is accepted.
  class Nobody final : public Handler {
   public:
    std::optional<HttpResponse> refuse(const HttpRequest&) override { return std::nullopt; }
    void handle(const std::shared_ptr<Exchange>&) override {}
    HttpResponse protocol_error(int, std::string_view, std::string_view) override { return {}; }
  } nobody;
  const HttpServer server(options, nobody);
}

HttpServer::HttpServer(HttpOptions options, Handler& handler)
    : impl_(std::make_unique<Impl>(std::move(options), handler)) {
  impl_->load_tls();
  impl_->listen();
}

void HttpServer::start() {
  for (const auto& listener : impl_->listeners)
    asio::post(listener->strand, [impl = impl_.get(), it = listener.get()] { impl->accept(*it); });
  for (std::uint32_t i = 0; i < impl_->shared->options.thread_count; ++i)
    impl_->threads.emplace_back([impl = impl_.get()] { impl->run(); });
}

HttpServer::~HttpServer() {
  impl_->shared->stopping = true;
  impl_->io.stop();
  impl_->threads.clear();
}

std::vector<std::string> HttpServer::addresses() const {
  return impl_->addresses;
}

std::uint16_t HttpServer::port() const {
  return impl_->port;
}

std::size_t HttpServer::connections() const {
  return impl_->shared->connections;
}

void HttpServer::stop_accepting() {
  if (impl_->shared->stopping.exchange(true)) return;
  for (const auto& listener : impl_->listeners) {
    asio::post(listener->strand, [it = listener.get()] {
      error_code ignored;
      it->acceptor.close(ignored);
      it->pause.cancel();
    });
  }
  impl_->shared->list.close_idle();
}

void HttpServer::wait_idle(std::chrono::steady_clock::time_point deadline) {
  while (impl_->shared->connections > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace ds4::server
