#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/scheduler.h"
#include "server/http_server.h"
#include "server/service.h"

namespace ds4::server {

struct ServerOptions {
  HttpOptions http = {};
  ServiceOptions service = {};
  SchedulerOptions scheduler = {};
  // Allows an address that others can reach although no keys are set.
  bool insecure_no_auth = false;
};

// Throws what a Server would throw for its options alone, before a model is loaded for nothing:
// Error(kInvalidArgument | kIo) for addresses, certificates, origins and names.
void check_options(const ServerOptions& options);

// A whole server over one engine: scheduler, routes and network, from construction to drain().
// The engine must outlive it and is its own meanwhile.  Methods may be called from any thread.
class Server {
 public:
  // Allocates the slots, listens and serves.  Throws Error(kInvalidArgument) for an address beyond
  // this machine without keys, and what HttpServer, Scheduler and Service throw.
  Server(Engine& engine, ServerOptions options, PrefixStore* store = nullptr);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  std::vector<std::string> addresses() const;
  std::uint16_t port() const;
  SchedulerStats stats();
  // Takes nothing new, lets answers end until `deadline`, hands the slots to the store, and closes.
  void drain(std::chrono::steady_clock::time_point deadline);

 private:
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace ds4::server
