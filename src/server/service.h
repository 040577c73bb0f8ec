#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "chat/render.h"
#include "engine/scheduler.h"
#include "server/access.h"
#include "server/ask.h"
#include "server/exchange.h"
#include "server/grammar_cache.h"
#include "server/metrics.h"
#include "server/replay_memory.h"
#include "server/trace.h"
#include "server/workers.h"

namespace ds4::server {

struct ServiceOptions {
  std::string model_name = "deepseek-v4-flash";
  std::uint32_t answer_tokens_max = 393216;  // when the client names no limit, and at most
  chat::EffortLadder ladder = chat::EffortLadder::kApril2026;
  chat::ThinkMode think = chat::ThinkMode::kHigh;
  sample::SamplingOptions sampling = {};
  std::optional<std::uint32_t> think_tokens_max = {};
  std::string think_budget_text = {};
  bool replays_exactly = true;
  std::size_t replay_ids_max = 100000;
  std::chrono::milliseconds keep_alive{5000};
  std::chrono::seconds stuck{600};  // a batch that runs longer means that the device is dead
  AccessOptions access = {};
  std::filesystem::path trace = {};
  std::uint64_t trace_bytes_max = std::uint64_t{256} << 20;
  LogSink log = {};
};

// The routes: from an HTTP request to an answer of the scheduler and back, in the words of each
// protocol.  Any thread may call; an exchange's own work is done on its connection's thread.
class Service final : public Handler {
 public:
  // All of them must outlive the service.
  Service(Scheduler& scheduler, const tokenizer::Tokenizer& tokenizer, ServiceOptions options);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  ~Service() override;

  std::optional<HttpResponse> refuse(const HttpRequest& head) override;
  void handle(const std::shared_ptr<Exchange>& exchange) override;
  HttpResponse protocol_error(int status, std::string_view message, std::string_view path) override;

  // For /metrics.
  void set_connection_count(std::function<std::size_t()> count) { connections_ = std::move(count); }
  // From now on the server is not ready and new answers are refused.
  void start_draining() { draining_ = true; }
  // Waits for requests being read; those that wait to be are dropped.  Before the network ends.
  void stop() {
    workers_.stop();
    reporter_.stop();
  }

 private:
  class Serving;
  friend class Serving;

  // On a worker's thread: from a body to what is to be done on the connection's.
  void prepare(const std::shared_ptr<Exchange>& exchange);
  void prepare_answer(const std::shared_ptr<Exchange>& exchange, Protocol protocol);
  void count_tokens(const std::shared_ptr<Exchange>& exchange);
  // Runs `work`; what it throws is the exchange's reply, on the connection's thread.
  void fenced(const std::shared_ptr<Exchange>& exchange, const std::function<void()>& work);
  void reply(Exchange& exchange, HttpResponse response);
  void reply_json(Exchange& exchange, std::string body);
  void health(Exchange& exchange);
  void models(Exchange& exchange);
  std::string model_json() const;
  HttpResponse preflight(const HttpRequest& head) const;
  Ask read(Protocol protocol, std::string_view body) const;
  chat::RenderOptions render_options(const Ask& ask) const;
  std::string name_space_of(const HttpRequest& request) const;

  Scheduler& scheduler_;
  const tokenizer::Tokenizer& tokenizer_;
  const ServiceOptions options_;
  const Access access_;
  Metrics metrics_;
  ReplayMemory replay_;
  GrammarCache grammars_;
  std::unique_ptr<Trace> trace_;
  std::function<std::size_t()> connections_;
  std::atomic<bool> draining_{false};
  std::atomic<std::uint64_t> request_count_{0};
  // One thread that writes down what became of answers, which may have to read the disk first.
  Workers reporter_;
  Workers workers_;  // last: it uses everything above, as the reporter does
};

}  // namespace ds4::server
