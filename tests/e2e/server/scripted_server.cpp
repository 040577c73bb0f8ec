// A server whose model says what a file tells it: for tests of clients and protocols.
//
//   ds4_scripted_server RULES.json [PORT]
//
// RULES.json: {"otherwise": "...", "per_row_us": 0, "per_run_us": 0, "slots": 4, "context": 65536,
// "rules": [{"trigger": "...", "answer": "..."}], "keys": "FILE", "trace": "FILE"}.  Prints
// "listening PORT" and serves until SIGTERM, then drains.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "server/server.h"
#include "tests/support/scripted_model.h"

namespace {

constexpr std::size_t kRulesBytesMax = std::size_t{16} << 20;

int run(int argc, char** argv) {
  using namespace ds4;
  if (argc < 2) {
    fmt::print(stderr, "usage: {} RULES.json [PORT]\n", argv[0]);
    return 2;
  }
  const auto json = nlohmann::json::parse(read_text_file(argv[1], kRulesBytesMax));
  test::ScriptedOptions script;
  script.otherwise = json.value("otherwise", "Hello.");
  script.per_row = std::chrono::microseconds(json.value("per_row_us", 0));
  script.per_run = std::chrono::microseconds(json.value("per_run_us", 0));
  for (const auto& rule : json.value("rules", nlohmann::json::array()))
    script.rules.push_back({rule.at("trigger"), rule.at("answer")});

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  server::ServerOptions options;
  options.http.port = static_cast<std::uint16_t>(argc > 2 ? std::atoi(argv[2]) : 0);
  options.scheduler.context = json.value("context", 65536U);
  options.scheduler.slot_count = json.value("slots", 4U);
  options.scheduler.queue_max = json.value("queue", 64U);
  options.service.keep_alive = std::chrono::milliseconds(json.value("keep_alive_ms", 5000));
  options.service.trace = json.value("trace", "");
  options.service.log = [](LogLevel, std::string_view message) {
    fmt::print(stderr, "{}\n", message);
  };
  if (json.contains("keys"))
    options.service.access.keys = server::read_api_keys(json["keys"].get<std::string>());
  options.service.access.origins = json.value("origins", std::vector<std::string>{});
  const auto engine = test::scripted_engine(script);
  server::Server server(*engine, options);
  fmt::print("listening {}\n", server.port());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  server.drain(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
