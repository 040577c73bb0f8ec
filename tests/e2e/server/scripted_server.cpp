// A server whose model says what a file tells it: for tests of clients and protocols.
//
//   ds4_scripted_server RULES.json [PORT]
//
// RULES.json: {"otherwise": "...", "per_row_us": 0, "per_run_us": 0, "slots": 4, "context": 65536,
// "rules": [{"trigger": "...", "answer": "..."}], "keys": "FILE", "trace": "FILE",
// "kv": "DIRECTORY", "explain_ms": 0, "hosts": [],
// "origins": [], "allowed_hosts": [], "http": {"header_timeout_ms": ..., ...}}.  Prints
// "listening PORT" and serves until SIGTERM, then drains.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "kvstore/engine_store.h"
#include "server/server.h"
#include "tests/support/scripted_model.h"

namespace {

constexpr std::size_t kRulesBytesMax = std::size_t{16} << 20;

using Json = nlohmann::json;

ds4::test::ScriptedOptions script_of(const Json& json) {
  ds4::test::ScriptedOptions script;
  script.otherwise = json.value("otherwise", "Hello.");
  script.per_row = std::chrono::microseconds(json.value("per_row_us", 0));
  script.per_run = std::chrono::microseconds(json.value("per_run_us", 0));
  script.rows_max = json.value("rows_max", script.rows_max);
  for (const auto& rule : json.value("rules", Json::array()))
    script.rules.push_back({rule.at("trigger"), rule.at("answer")});
  return script;
}

void read_network(const Json& json, ds4::server::HttpOptions& http) {
  const auto time = [&](const char* name, std::chrono::milliseconds& value) {
    value = std::chrono::milliseconds(json.value(name, value.count()));
  };
  time("header_timeout_ms", http.header_timeout);
  time("body_timeout_ms", http.body_timeout);
  time("idle_timeout_ms", http.idle_timeout);
  time("write_timeout_ms", http.write_timeout);
  http.thread_count = json.value("threads", http.thread_count);
  http.connections_max = json.value("connections_max", http.connections_max);
  http.body_bytes_max = json.value("body_bytes_max", http.body_bytes_max);
  http.all_bodies_bytes_max = json.value("all_bodies_bytes_max", http.all_bodies_bytes_max);
  http.tls_certificate = json.value("cert", "");
  http.tls_key = json.value("key", "");
}

ds4::server::ServerOptions options_of(const Json& json) {
  ds4::server::ServerOptions options;
  read_network(json.value("http", Json::object()), options.http);
  options.http.hosts = json.value("hosts", options.http.hosts);
  options.insecure_no_auth = json.value("insecure_no_auth", false);
  options.scheduler.context = json.value("context", 65536U);
  options.scheduler.slot_count = json.value("slots", 4U);
  options.scheduler.queue_max = json.value("queue", 64U);
  options.service.keep_alive = std::chrono::milliseconds(json.value("keep_alive_ms", 5000));
  options.service.stuck = std::chrono::seconds(json.value("stuck_s", 600));
  options.service.trace = json.value("trace", "");
  options.service.trace_bytes_max = json.value("trace_bytes_max", options.service.trace_bytes_max);
  options.service.log = [](ds4::LogLevel, std::string_view message) {
    fmt::print(stderr, "{}\n", message);
  };
  options.http.log = options.service.log;
  if (json.contains("keys"))
    options.service.access.keys = ds4::server::read_api_keys(json["keys"].get<std::string>());
  options.service.access.origins = json.value("origins", std::vector<std::string>{});
  options.service.access.hosts = json.value("allowed_hosts", std::vector<std::string>{});
  return options;
}

// A store on a disk that takes its time to explain a miss.
class SlowStore final : public ds4::PrefixStore {
 public:
  SlowStore(ds4::PrefixStore& inner, std::chrono::milliseconds delay)
      : inner_(inner),
        delay_(delay) {}

  ds4::StoredPrefix lookup(const ds4::PromptView& prompt) override {
    ds4::StoredPrefix stored = inner_.lookup(prompt);
    if (!stored.explain) return stored;
    stored.explain = [delay = delay_, explain = std::move(stored.explain)](std::string_view key) {
      std::this_thread::sleep_for(delay);
      return explain(key);
    };
    return stored;
  }
  std::unique_ptr<ds4::StateLoad> load(const ds4::PromptView& prompt, ds4::Slot& slot) override {
    return inner_.load(prompt, slot);
  }
  void save(ds4::Slot& slot, Moment moment) override { inner_.save(slot, moment); }
  std::uint32_t cold_length(std::span<const ds4::TokenId> prompt,
                            std::uint32_t reused) const override {
    return inner_.cold_length(prompt, reused);
  }
  std::uint32_t continued_interval() const override { return inner_.continued_interval(); }
  std::uint32_t gain_min() const override { return inner_.gain_min(); }
  ds4::PrefixStoreStats stats() override { return inner_.stats(); }

 private:
  ds4::PrefixStore& inner_;
  const std::chrono::milliseconds delay_;
};

int run(int argc, char** argv) {
  using namespace ds4;
  if (argc < 2) {
    fmt::print(stderr, "usage: {} RULES.json [PORT]\n", argv[0]);
    return 2;
  }
  const Json json = Json::parse(read_text_file(argv[1], kRulesBytesMax));

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  server::ServerOptions options = options_of(json);
  options.http.port = static_cast<std::uint16_t>(argc > 2 ? std::atoi(argv[2]) : 0);
  const test::ScriptedOptions script = script_of(json);
  const auto engine = test::scripted_engine(script);
  std::unique_ptr<kvstore::EngineStore> store;
  if (json.contains("kv")) {
    kvstore::EngineStoreOptions kv;
    kv.store.directory = json["kv"].get<std::string>();
    kv.store.chunk_tokens = json.value("kv_chunk", 128U);
    kv.store.state_stride_chunks = 4;
    kv.store.bytes_max = json.value("kv_bytes", std::uint64_t{1} << 30);
    kv.tokens_min = json.value("kv_min", 32U);
    kv.continued_interval = 4 * kv.store.chunk_tokens;
    kv.store.log = options.service.log;
    store = std::make_unique<kvstore::EngineStore>(*engine, kv);
  }
  std::optional<SlowStore> slow;
  const std::chrono::milliseconds explains{json.value("explain_ms", 0)};
  if (store && explains.count() > 0) slow.emplace(*store, explains);
  server::Server server(*engine, options, slow ? &*slow : static_cast<PrefixStore*>(store.get()));
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
