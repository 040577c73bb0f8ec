#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "server/answer.h"
#include "server/errors.h"
#include "server/service.h"
#include "server/writer.h"

namespace ds4::server {

// One answer on its way out: takes what Answer queued and writes it to its exchange as fast as the
// client reads.  Confined to the exchange's thread from start() on.
class Service::Serving : public std::enable_shared_from_this<Service::Serving> {
 public:
  Serving(Service& service, std::shared_ptr<Exchange> exchange, Ask ask, std::string name_space);

  // Renders and tokenises; any thread.  A refusal when the prompt does not fit.
  std::optional<Failure> prepare();
  // Submits what prepare() made.  Throws Error for what cannot be served.
  void start();

 private:
  AnswerOptions answer_options() const;
  void pump(const std::shared_ptr<Answer>& answer);
  void take(const AnswerEvent& event, std::string& out);
  // Counts, writes down and ends the answer.  What needs a disk for that is done on another thread;
  // with a trace, which holds every answer that has ended, the answer ends behind it.
  void finish(const Outcome& outcome, const AnswerCounts& counts);
  void end(const Outcome& outcome);
  // Tells the scheduler and the replay memory what the conversation looks like when it comes back.
  void remember(const Outcome& outcome);
  std::string visible_key(std::vector<chat::Message> messages,
                          const std::string& reasoning,
                          const std::string& exact_tool_block) const;
  // To the log and the trace; changes nothing here and throws nothing.
  void report(const Outcome& outcome) const;
  void write_report(const Outcome& outcome) const;

  Service& service_;
  const std::shared_ptr<Exchange> exchange_;
  Ask ask_;
  // Before remembered calls were put in: what comes back to a server that has forgotten them.
  // Empty when there were no calls.
  std::vector<chat::Message> sent_;
  const std::string name_space_;
  const chat::RenderOptions render_;
  const std::uint64_t number_;
  const std::chrono::steady_clock::time_point arrived_;
  std::unique_ptr<Writer> writer_;
  GenerationRequest request_;  // until start()
  chat::AnswerGrammars grammars_;
  AnswerRecord record_;
  ReuseReport reuse_;
  std::string key_;  // of the prompt
  bool has_first_token_ = false;
  std::chrono::steady_clock::time_point last_write_;
  std::optional<std::stop_callback<std::function<void()>>> on_gone_;
};

}  // namespace ds4::server
