// Decode and prefill speed of the CPU backend on one model file, beside the read bandwidth of the
// machine measured in the same run.
//
//   cpu_bench -m FILE [--threads N] [--prefill N] [--decode N] [--rounds N]
//
// Every round measures the bandwidth, a prefill and a decode in turn; each figure is the median of
// the rounds, the share of the bandwidth the median of each round's own share.  Bytes per token are
// the weight bytes that one row must read: everything but the embedding table and the experts that
// are not chosen.  Rates by processor time are what the threads would reach if they were never
// descheduled; they count waiting in the pool.  The phases are groups of stages, of the last round.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "backend/graph_executor.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "bench/timed_machine.h"
#include "cpu/cpu_executor.h"
#include "cpu/machine.h"
#include "gguf/reader.h"
#include "model/weights.h"

namespace {

struct Options {
  std::string model;
  std::uint32_t threads = 0;
  std::uint32_t prefill = 512;
  std::uint32_t decode = 32;
  int rounds = 3;
};

using ds4::bench::kPhaseCount;
using ds4::bench::kPhaseNames;
using ds4::bench::Phase;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Processor time of all threads of this process: what other programs take does not count.
double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Reads a buffer far larger than caches, on the same number of threads.
class BandwidthMeter {
 public:
  explicit BandwidthMeter(std::uint32_t threads)
      : pool_(threads),
        buffer_(kBytes / sizeof(std::uint64_t), 1),
        sums_(kPieces) {}

  std::size_t thread_count() const { return pool_.thread_count(); }

  struct Rates {
    double best = 0;    // bytes a second of the best of some passes: what else runs only slows down
    double by_cpu = 0;  // by processor time
  };

  Rates measure() {
    double best = 0;
    const double begin_cpu = cpu_seconds();
    for (int pass = 0; pass < kPasses; ++pass) {
      const auto begin = Clock::now();
      pool_.run(kPieces, [&](std::size_t piece) {
        const std::size_t count = buffer_.size() / kPieces;
        const std::uint64_t* first = buffer_.data() + piece * count;
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < count; ++i)
          sum += first[i];
        sums_[piece] = sum;
      });
      best = std::max(best, static_cast<double>(kBytes) / seconds_since(begin));
    }
    DS4_CHECK(std::accumulate(sums_.begin(), sums_.end(), std::uint64_t{0}) == buffer_.size());
    const double threads = static_cast<double>(pool_.thread_count());
    return {best, threads * kPasses * static_cast<double>(kBytes) / (cpu_seconds() - begin_cpu)};
  }

 private:
  static constexpr int kPasses = 3;
  static constexpr std::size_t kBytes = std::size_t{1} << 30;
  static constexpr std::size_t kPieces = 256;
  ds4::ThreadPool pool_;
  std::vector<std::uint64_t> buffer_;
  std::vector<std::uint64_t> sums_;
};

// Weight bytes that one row reads, by phase.
using PhaseBytes = std::array<double, kPhaseCount>;

PhaseBytes bytes_per_token(const ds4::ModelConfig& config, const ds4::Weights& weights) {
  PhaseBytes bytes{};
  const auto add = [&](Phase phase, std::initializer_list<const ds4::Weight*> list) {
    for (const ds4::Weight* w : list)
      bytes[static_cast<std::size_t>(phase)] +=
          static_cast<double>(w->bytes.size()) *
          (w->slabs > 1 ? static_cast<double>(config.experts_used) / static_cast<double>(w->slabs)
                        : 1.0);
  };
  for (const ds4::LayerWeights& l : weights.layers) {
    add(Phase::kStreams, {&l.attention_hc.fn, &l.ffn_hc.fn});
    add(Phase::kProjections, {&l.query_a, &l.query_b, &l.key_value});
    if (l.compressor) add(Phase::kProjections, {&l.compressor->kv, &l.compressor->gate});
    if (l.indexer) {
      add(Phase::kProjections, {&l.indexer->compressor.kv, &l.indexer->compressor.gate});
      add(Phase::kSelection, {&l.indexer->query, &l.indexer->proj});
    }
    add(Phase::kOutput, {&l.output_a, &l.output_b});
    add(Phase::kExperts, {&l.router, &l.expert_gate, &l.expert_up, &l.expert_down, &l.shared_gate,
                          &l.shared_up, &l.shared_down});
  }
  add(Phase::kHead, {&weights.head.hc.fn, &weights.output});
  return bytes;
}

struct Round {
  double bandwidth = 0;  // bytes a second
  double bandwidth_cpu = 0;
  double prefill = 0;  // tokens a second
  double decode = 0;
  double prefill_cpu = 0;  // processor seconds a token
  double decode_cpu = 0;
  ds4::bench::TimedMachine::Seconds prefill_phases{};
  ds4::bench::TimedMachine::Seconds decode_phases{};
};

class Bench {
 public:
  Bench(const Options& options, const ds4::ModelConfig& config, const ds4::Weights& weights)
      : options_(options),
        config_(config),
        meter_(options.threads),
        logits_(config.vocab_size) {
    const ds4::cpu::CpuOptions cpu{.thread_count = options.threads,
                                   .rows_max = std::max(16U, options.prefill)};
    const ds4::LayerSlice slice{
        weights.first_layer,
        weights.first_layer + static_cast<std::uint32_t>(weights.layers.size())};
    executor_ = std::make_unique<ds4::GraphExecutor>(
        config, ds4::StateLayout(config, cpu.codec, false), slice,
        std::make_unique<ds4::bench::TimedMachine>(
            std::make_unique<ds4::cpu::CpuMachine>(config, weights, cpu), seconds_));
    sequence_ = executor_->open_sequence(options.prefill + options.decode + 1);
  }

  const ds4::Executor& executor() const { return *executor_; }
  std::size_t thread_count() const { return meter_.thread_count(); }

  Round run() {
    Round round;
    const BandwidthMeter::Rates rates = meter_.measure();
    round.bandwidth = rates.best;
    round.bandwidth_cpu = rates.by_cpu;
    executor_->truncate(sequence_, 0);
    seconds_ = {};
    auto begin = Clock::now();
    double begin_cpu = cpu_seconds();
    run_rows(0, options_.prefill);
    round.prefill = options_.prefill / seconds_since(begin);
    round.prefill_cpu = (cpu_seconds() - begin_cpu) / options_.prefill;
    round.prefill_phases = std::exchange(seconds_, {});
    begin = Clock::now();
    begin_cpu = cpu_seconds();
    for (std::uint32_t p = options_.prefill; p < options_.prefill + options_.decode; ++p)
      run_rows(p, p + 1);
    round.decode = options_.decode / seconds_since(begin);
    round.decode_cpu = (cpu_seconds() - begin_cpu) / options_.decode;
    round.decode_phases = seconds_;
    return round;
  }

 private:
  void run_rows(std::uint32_t from, std::uint32_t to) {
    rows_.clear();
    for (std::uint32_t p = from; p < to; ++p) {
      const ds4::TokenId token{static_cast<std::int32_t>(p * 2654435761U % config_.vocab_size)};
      rows_.push_back({token, ds4::Position{p}, sequence_, p + 1 == to});
    }
    executor_->run({rows_}, {.logits = ds4::Rows(logits_.data(), {1, logits_.size()})});
  }

  const Options& options_;
  const ds4::ModelConfig& config_;
  BandwidthMeter meter_;
  std::vector<float> logits_;
  std::vector<ds4::BatchRow> rows_;
  ds4::bench::TimedMachine::Seconds seconds_{};
  std::unique_ptr<ds4::GraphExecutor> executor_;
  ds4::SequenceId sequence_{0};
};

template <class Value>
double median_of(const std::vector<Round>& rounds, const Value& value) {
  std::vector<double> values;
  for (const Round& round : rounds)
    values.push_back(value(round));
  return median(values);
}

void print_phases(const Options& options, const PhaseBytes& bytes, const Round& last) {
  fmt::print("phase         decode ms   MB read    GB/s  share | prefill us a token\n");
  for (std::size_t p = 0; p < kPhaseCount; ++p) {
    const double seconds = last.decode_phases[p] / options.decode;
    const double rate = bytes[p] / seconds;
    fmt::print("{:12} {:10.3f} {:9.1f} {:7.2f} {:4.0f} % | {:8.1f}\n", kPhaseNames[p],
               1e3 * seconds, bytes[p] / 1e6, rate / 1e9, 100 * rate / last.bandwidth,
               1e6 * last.prefill_phases[p] / options.prefill);
  }
}

void run(const Options& options) {
  const ds4::gguf::Reader file{std::filesystem::path(options.model)};
  const ds4::ModelConfig config = ds4::read_config(file, {});
  ds4::Weights weights = ds4::bind_weights(file, nullptr, config, {});
  weights.mtp.reset();
  const PhaseBytes phase_bytes = bytes_per_token(config, weights);
  const double bytes = std::accumulate(phase_bytes.begin(), phase_bytes.end(), 0.0);
  Bench bench(options, config, weights);
  bench.run();  // brings the pages in
  std::vector<Round> rounds;
  for (int round = 0; round < options.rounds; ++round)
    rounds.push_back(bench.run());
  const double prefill = median_of(rounds, [](const Round& r) { return r.prefill; });
  const double decode = median_of(rounds, [](const Round& r) { return r.decode; });
  const double share =
      median_of(rounds, [&](const Round& r) { return r.decode * bytes / r.bandwidth; });
  const double bandwidth = median_of(rounds, [](const Round& r) { return r.bandwidth; });
  fmt::print("model            {}\n", options.model);
  fmt::print("device           {}\n", bench.executor().info().device);
  fmt::print("read bandwidth   {:8.2f} GB/s\n", bandwidth / 1e9);
  fmt::print("prefill {:5}    {:8.1f} t/s\n", options.prefill, prefill);
  fmt::print(
      "decode           {:8.2f} t/s, {:.1f} MB a token, {:.2f} GB/s, {:.0f} % of the bandwidth\n",
      decode, bytes / 1e6, decode * bytes / 1e9, 100 * share);
  const double threads = static_cast<double>(bench.thread_count());
  const double decode_cpu =
      median_of(rounds, [&](const Round& r) { return threads / r.decode_cpu; });
  const double share_cpu = median_of(
      rounds, [&](const Round& r) { return threads / r.decode_cpu * bytes / r.bandwidth_cpu; });
  fmt::print(
      "by processor time: prefill {:.1f} t/s, decode {:.2f} t/s, {:.2f} GB/s, {:.0f} % of {:.2f}\n",
      median_of(rounds, [&](const Round& r) { return threads / r.prefill_cpu; }), decode_cpu,
      decode_cpu * bytes / 1e9, 100 * share_cpu,
      median_of(rounds, [](const Round& r) { return r.bandwidth_cpu; }) / 1e9);
  print_phases(options, phase_bytes, rounds.back());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Speed of the CPU backend beside the machine's read bandwidth.", "cpu_bench"};
  app.add_option("-m,--model", options.model, "model file")->required();
  app.add_option("--threads", options.threads, "threads (default: physical cores)");
  app.add_option("--prefill", options.prefill, "prompt tokens (default: 512)")
      ->check(CLI::Range(1U, 1U << 20));
  app.add_option("--decode", options.decode, "decoded tokens (default: 32)")
      ->check(CLI::Range(1U, 1U << 20));
  app.add_option("--rounds", options.rounds, "rounds; medians are printed (default: 3)")
      ->check(CLI::Range(1, 100));
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
  } catch (const ds4::Error& error) {
    fmt::print(stderr, "cpu_bench: {}\n", error.what());
    return 1;
  }
  return 0;
}
