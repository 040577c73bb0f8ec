#pragma once
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>

#include "server/http_server.h"

// What the listener and its connections share.  Included by http_*.cpp alone.
namespace ds4::server {

// A connection as the listener sees it.
class Closable {
 public:
  Closable() = default;
  Closable(const Closable&) = delete;
  Closable& operator=(const Closable&) = delete;
  virtual ~Closable() = default;

  // Ends the connection soon, unless a request is being read or served.  Any thread.
  virtual void close_when_idle() = 0;
};

// The open connections.  Synchronised.
class ConnectionList {
 public:
  void add(const std::shared_ptr<Closable>& connection);
  void remove(const Closable* connection);
  void close_idle();

 private:
  std::mutex mutex_;
  std::unordered_map<const Closable*, std::weak_ptr<Closable>> open_;
};

struct HttpShared {
  HttpShared(HttpOptions its_options, Handler& its_handler)
      : options(std::move(its_options)),
        handler(its_handler) {}

  const HttpOptions options;
  Handler& handler;
  ConnectionList list;
  std::atomic<std::size_t> connections{0};
  std::atomic<std::size_t> body_bytes{0};  // of requests being read or served
  std::atomic<bool> stopping{false};
};

// Serve one accepted connection until it ends; it keeps itself alive.
void serve_plain(std::shared_ptr<HttpShared> shared, boost::asio::ip::tcp::socket socket);
void serve_tls(std::shared_ptr<HttpShared> shared,
               boost::asio::ip::tcp::socket socket,
               boost::asio::ssl::context& context);

}  // namespace ds4::server
