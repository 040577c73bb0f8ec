#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "server/exchange.h"

namespace ds4::server {

struct HttpOptions {
  // Addresses or names; all addresses of each are listened on.
  std::vector<std::string> hosts = {"127.0.0.1"};
  bool loopback_only = false;  // addresses that other machines can reach are refused
  std::uint16_t port = 8000;   // 0: one that is free
  std::uint32_t thread_count = 2;
  std::size_t connections_max = 2048;
  std::size_t header_bytes_max = std::size_t{64} << 10;
  std::size_t body_bytes_max = std::size_t{64} << 20;
  std::size_t all_bodies_bytes_max = std::size_t{512} << 20;  // of all connections together
  std::chrono::milliseconds idle_timeout{120000};             // between requests
  std::chrono::milliseconds header_timeout{10000};  // a head, from its first byte to its end
  std::chrono::milliseconds body_timeout{60000};    // a whole body
  // In which a client that is behind has to take 64 KiB, or all there is.
  std::chrono::milliseconds write_timeout{60000};
  std::filesystem::path tls_certificate;  // PEM chain; empty: no TLS
  std::filesystem::path tls_key;
  LogSink log = {};
};

// HTTP/1.1 over TCP or TLS: listens, frames strictly, limits sizes and times, and hands whole
// requests to a Handler.  Boost.Beast does the parsing: conflicting or malformed lengths, bare line
// feeds and unknown transfer codings are refused (docs/protocols/http.md).  Threads are its own;
// every method may be called from any thread.
class HttpServer {
 public:
  // Throws what the constructor would.
  static void check(const HttpOptions& options);

  // Binds and listens; start() serves.  Throws Error(kInvalidArgument | kIo) for the address, the
  // certificate or the key.  `handler` must outlive the server.
  HttpServer(HttpOptions options, Handler& handler);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  // Closes every connection.
  ~HttpServer();

  // Call once.
  void start();
  // "127.0.0.1:8000", one each; the ports are the real ones.
  std::vector<std::string> addresses() const;
  std::uint16_t port() const;
  std::size_t connections() const;
  // No new connections, no further requests on the open ones.
  void stop_accepting();
  // Waits until every connection is over, at most until then.
  void wait_idle(std::chrono::steady_clock::time_point deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ds4::server
