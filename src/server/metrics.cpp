#include "server/metrics.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <mutex>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

namespace ds4::server {

namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

const Histogram::BucketBoundaries kSeconds{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};

// Of this process, mapped weights included; 0 where the system does not say.
double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double total_pages = 0;
  double resident_pages = 0;
  file >> total_pages >> resident_pages;
  return resident_pages * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; it != end && !error;
       it.increment(error))
    ++count;
  return std::max(count - 1, 0.0);  // without the folder's own
}

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;
  Family<Counter>& counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& gauges(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Histogram& histogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, kSeconds);
  }

  Family<Counter>& requests = counters("ds4_http_requests_total", "HTTP requests by path, status");
  Family<Counter>& answers = counters("ds4_answers_total", "Answers by protocol and finish");
  Family<Counter>& repairs =
      counters("ds4_tool_call_repairs_total", "Deviations in tool calls that were mended");
  Counter& malformed =
      counters("ds4_tool_calls_malformed_total", "Tool call blocks that could not be read").Add({});
  Counter& retries =
      counters("ds4_tool_call_retries_total", "Tool calls sent back to the model").Add({});
  Histogram& queue_seconds = histogram("ds4_queue_seconds", "Time that requests waited for a slot");
  Histogram& prefill_seconds = histogram("ds4_prefill_seconds", "Time that prompts took to read");
  Histogram& decode_seconds = histogram("ds4_decode_seconds", "Time that answers took to write");
  Histogram& first_token =
      histogram("ds4_first_token_seconds", "Time from a request to its first token");

  Family<Counter>& tokens = counters("ds4_tokens_total", "Tokens evaluated, by phase, or reused");
  Counter& prefill_tokens = tokens.Add({{"phase", "prefill"}});
  Counter& decode_tokens = tokens.Add({{"phase", "decode"}});
  Counter& reused_tokens = tokens.Add({{"phase", "reused"}});
  Counter& steps = counters("ds4_steps_total", "Batches run").Add({});
  Counter& rejected = counters("ds4_requests_rejected_total", "Refused by a full queue").Add({});
  Counter& cancelled = counters("ds4_answers_cancelled_total", "Answers whose client left").Add({});
  Counter& failed = counters("ds4_answers_failed_total", "Answers that ended in an error").Add({});
  Counter& evictions = counters("ds4_evictions_total", "Conversations dropped for others").Add({});
  Family<Counter>& reuse = counters("ds4_prefix_reuse_total", "Prompts by where they began");
  Gauge& queued = gauges("ds4_requests_queued", "Requests that wait for a slot").Add({});
  Gauge& active = gauges("ds4_requests_active", "Answers in the making").Add({});
  Gauge& connections = gauges("ds4_connections", "Open connections").Add({});
  Gauge& step_max =
      gauges("ds4_step_seconds_max", "The longest batch since the last scrape").Add({});
  Gauge& resident =
      gauges("process_resident_memory_bytes", "Memory, mapped weights included").Add({});
  Gauge& descriptors = gauges("process_open_fds", "Open files and connections").Add({});
  Gauge& step_now = gauges("ds4_step_seconds_now", "Of the batch that runs now; 0: none").Add({});
  Gauge& device_failed = gauges("ds4_device_failed", "1 when the device has failed").Add({});
  Family<Gauge>& slot_tokens = gauges("ds4_slot_tokens", "Tokens of each resident conversation");
  Family<Counter>& store_counts = counters("ds4_store_total", "The disk store's work");
  Family<Gauge>& store_now = gauges("ds4_store", "What the disk store holds");

  std::mutex mutex;
  SchedulerStats last;
};

Metrics::Metrics(const std::string& model) : impl_(std::make_unique<Impl>()) {
  impl_->gauges("ds4_info", "The model that is served").Add({{"model", model}}).Set(1);
  impl_->gauges("process_start_time_seconds", "When the server began, in Unix time")
      .Add({})
      .Set(static_cast<double>(std::time(nullptr)));
}

Metrics::~Metrics() = default;

void Metrics::count_request(std::string_view path, int status) {
  impl_->requests.Add({{"path", std::string(path)}, {"status", std::to_string(status)}})
      .Increment();
}

void Metrics::count_answer(Protocol protocol, const Outcome& outcome, const AnswerCounts& counts) {
  impl_->answers
      .Add({{"protocol", protocol_name(protocol)}, {"finish", finish_word(outcome.finish)}})
      .Increment();
  for (std::size_t i = 0; i < counts.repairs.size(); ++i) {
    if (counts.repairs[i] == 0) continue;
    const std::string name(chat::repair_name(static_cast<chat::Repair>(i)));
    impl_->repairs.Add({{"kind", name}}).Increment(counts.repairs[i]);
  }
  impl_->malformed.Increment(counts.malformed);
  impl_->retries.Increment(counts.tool_retries);
  impl_->queue_seconds.Observe(outcome.generation.queue_seconds);
  impl_->prefill_seconds.Observe(outcome.generation.prefill_seconds);
  impl_->decode_seconds.Observe(outcome.generation.decode_seconds);
}

void Metrics::count_first_token(double seconds) {
  impl_->first_token.Observe(seconds);
}

std::string Metrics::text(const SchedulerStats& stats,
                          double longest_step_seconds,
                          std::size_t connections) {
  const std::lock_guard lock(impl_->mutex);
  const auto grow = [](Counter& counter, std::uint64_t now, std::uint64_t before) {
    counter.Increment(static_cast<double>(now - before));
  };
  const SchedulerStats& last = impl_->last;
  grow(impl_->prefill_tokens, stats.prefill_tokens, last.prefill_tokens);
  grow(impl_->decode_tokens, stats.decode_tokens, last.decode_tokens);
  grow(impl_->reused_tokens, stats.reused_tokens, last.reused_tokens);
  grow(impl_->steps, stats.steps, last.steps);
  grow(impl_->rejected, stats.rejected, last.rejected);
  grow(impl_->cancelled, stats.cancelled, last.cancelled);
  grow(impl_->failed, stats.failed, last.failed);
  grow(impl_->evictions, stats.evictions, last.evictions);
  for (std::size_t i = 0; i < stats.by_source.size(); ++i) {
    const std::uint64_t before = last.by_source.empty() ? 0 : last.by_source[i];
    grow(impl_->reuse.Add({{"source", reuse_source_name(static_cast<ReuseSource>(i))}}),
         stats.by_source[i], before);
  }
  impl_->queued.Set(stats.queued);
  impl_->active.Set(stats.active);
  impl_->connections.Set(static_cast<double>(connections));
  impl_->step_max.Set(longest_step_seconds);
  impl_->resident.Set(resident_bytes());
  impl_->descriptors.Set(open_descriptors());
  impl_->step_now.Set(stats.seconds_in_step);
  impl_->device_failed.Set(stats.device_failed ? 1 : 0);
  for (std::size_t i = 0; i < stats.slot_tokens.size(); ++i)
    impl_->slot_tokens.Add({{"slot", std::to_string(i)}}).Set(stats.slot_tokens[i]);
  if (stats.store) {
    const PrefixStoreStats& store = *stats.store;
    const PrefixStoreStats before = last.store.value_or(PrefixStoreStats{});
    const auto count = [&](const char* what, std::uint64_t now, std::uint64_t then) {
      grow(impl_->store_counts.Add({{"what", what}}), now, then);
    };
    count("saves", store.saves, before.saves);
    count("save_failures", store.save_failures, before.save_failures);
    count("loads", store.loads, before.loads);
    count("load_failures", store.load_failures, before.load_failures);
    count("bytes_written", store.bytes_written, before.bytes_written);
    count("bytes_read", store.bytes_read, before.bytes_read);
    const auto set = [&](const char* what, std::uint64_t now) {
      impl_->store_now.Add({{"what", what}}).Set(static_cast<double>(now));
    };
    set("entries", store.entries);
    set("bytes", store.bytes);
    set("pending_bytes", store.pending_bytes);
  }
  impl_->last = stats;
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace ds4::server
