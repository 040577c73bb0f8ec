#include "server/server.h"

namespace ds4::server {

namespace {

// How long the last bytes may take once every answer has ended.
constexpr std::chrono::seconds kFlushTime{2};

HttpOptions network_of(const ServerOptions& options) {
  HttpOptions http = options.http;
  http.loopback_only = options.service.access.keys.empty() && !options.insecure_no_auth;
  return http;
}

}  // namespace

void check_options(const ServerOptions& options) {
  static_cast<void>(Access(options.service.access));
  if (!options.service.trace.empty())
    static_cast<void>(Trace(options.service.trace, options.service.trace_bytes_max));
  HttpServer::check(network_of(options));
}

Server::Server(Engine& engine, ServerOptions options, PrefixStore* store) {
  HttpOptions network = network_of(options);
  scheduler_ = std::make_unique<Scheduler>(engine, options.scheduler, store);
  service_ = std::make_unique<Service>(*scheduler_, engine.tokenizer(), std::move(options.service));
  http_ = std::make_unique<HttpServer>(std::move(network), *service_);
  service_->set_connection_count([http = http_.get()] { return http->connections(); });
  http_->start();
}

// The answers end first, while their connections still exist; then the network, whose handlers use
// the service and the scheduler.
Server::~Server() {
  if (service_) service_->start_draining();
  if (http_) http_->stop_accepting();
  if (scheduler_) scheduler_->drain(std::chrono::steady_clock::now());
  if (service_) service_->stop();
  http_.reset();
}

std::vector<std::string> Server::addresses() const {
  return http_->addresses();
}

std::uint16_t Server::port() const {
  return http_->port();
}

SchedulerStats Server::stats() {
  return scheduler_->stats();
}

void Server::drain(std::chrono::steady_clock::time_point deadline) {
  service_->start_draining();
  scheduler_->drain(deadline);
  http_->stop_accepting();
  http_->wait_idle(std::chrono::steady_clock::now() + kFlushTime);
}

}  // namespace ds4::server
