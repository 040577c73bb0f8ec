#include "server/server.h"

#include <string_view>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::server {

namespace {

// How long the last bytes may take once every answer has ended.
constexpr std::chrono::seconds kFlushTime{2};

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

}  // namespace

Server::Server(Engine& engine, ServerOptions options, PrefixStore* store) {
  if (!is_loopback(options.http.host) && options.service.access.keys.empty() &&
      !options.insecure_no_auth) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} can be reached by others: set keys with --api-key-file, or allow "
                            "everyone with --insecure-no-auth",
                            options.http.host));
  }
  scheduler_ = std::make_unique<Scheduler>(engine, options.scheduler, store);
  service_ = std::make_unique<Service>(*scheduler_, engine.tokenizer(), std::move(options.service));
  http_ = std::make_unique<HttpServer>(std::move(options.http), *service_);
  service_->set_connection_count([http = http_.get()] { return http->connections(); });
}

// The answers end first, while their connections still exist; then the network, whose handlers use
// the service and the scheduler.
Server::~Server() {
  if (service_) service_->start_draining();
  if (http_) http_->stop_accepting();
  if (scheduler_) scheduler_->drain(std::chrono::steady_clock::now());
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
