#pragma once
#include <memory>
#include <string>

#include "engine/scheduler.h"
#include "server/answer.h"

namespace ds4::server {

// What /metrics shows (docs/protocols/http.md).  Synchronised.
class Metrics {
 public:
  explicit Metrics(const std::string& model);
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;
  ~Metrics();

  void count_request(std::string_view path, int status);
  void count_answer(Protocol protocol, const Outcome& outcome, const AnswerCounts& counts);
  void count_first_token(double seconds);
  // The text of a scrape, with the scheduler's numbers of now.
  std::string text(const SchedulerStats& stats,
                   double longest_step_seconds,
                   std::size_t connections);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ds4::server
