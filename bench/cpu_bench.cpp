// Decode and prefill speed of the CPU backend on one model file, beside the read bandwidth of the
// machine measured in the same run.
//
//   cpu_bench -m FILE [--threads N] [--prefill N] [--decode N] [--context N] [--rounds N]
//
// Prints the median of the rounds.  Bytes per token are the weight bytes that one row must read:
// everything but the embedding table and the experts that are not chosen.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "base/thread_pool.h"
#include "cpu/cpu_executor.h"
#include "gguf/reader.h"
#include "model/weights.h"

namespace {

struct Options {
  std::string model;
  std::uint32_t threads = 0;
  std::uint32_t prefill = 512;
  std::uint32_t decode = 32;
  std::uint32_t context = 0;
  int rounds = 3;
};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Bytes a second that `threads` cores read from memory, by summing a buffer far larger than caches.
double read_bandwidth(std::uint32_t threads, int rounds) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  constexpr std::size_t kPieces = 256;
  std::vector<std::uint64_t> buffer(kBytes / sizeof(std::uint64_t), 1);
  ds4::ThreadPool pool(threads);
  std::vector<std::uint64_t> sums(kPieces);
  std::vector<double> rates;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = Clock::now();
    pool.run(kPieces, [&](std::size_t piece) {
      const std::size_t count = buffer.size() / kPieces;
      const std::uint64_t* first = buffer.data() + piece * count;
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < count; ++i)
        sum += first[i];
      sums[piece] = sum;
    });
    rates.push_back(static_cast<double>(kBytes) / seconds_since(begin));
  }
  DS4_CHECK(std::accumulate(sums.begin(), sums.end(), std::uint64_t{0}) == buffer.size());
  return median(rates);
}

std::uint64_t bytes_per_token(const ds4::ModelConfig& config, const ds4::Weights& weights) {
  std::uint64_t total = 0;
  weights.for_each([&](const ds4::Weight& weight) {
    if (weight.name == weights.embedding.name || weight.name.rfind("mtp.", 0) == 0) return;
    const std::uint64_t bytes = weight.bytes.size();
    const bool table = weight.type == ds4::ElementType::kI32;
    total += weight.slabs > 1 ? bytes / weight.slabs * config.experts_used : table ? 0 : bytes;
  });
  return total;
}

void run(const Options& options) {
  const ds4::gguf::Reader file{std::filesystem::path(options.model)};
  const ds4::ModelConfig config = ds4::read_config(file, {});
  ds4::Weights weights = ds4::bind_weights(file, nullptr, config, {});
  weights.mtp.reset();
  const std::uint32_t context = std::max(options.context, options.prefill + options.decode + 1);
  const auto executor = ds4::cpu::make_cpu_executor(
      config, weights,
      {.thread_count = options.threads, .rows_max = std::max(16U, options.prefill)});
  const auto token = [&](std::uint32_t position) {
    return ds4::TokenId{static_cast<std::int32_t>(position * 2654435761U % config.vocab_size)};
  };
  std::vector<float> logits(config.vocab_size);
  const auto run_rows = [&](ds4::SequenceId sequence, std::uint32_t from, std::uint32_t to) {
    std::vector<ds4::BatchRow> rows;
    for (std::uint32_t p = from; p < to; ++p)
      rows.push_back({token(p), ds4::Position{p}, sequence, p + 1 == to});
    executor->run({rows}, {.logits = ds4::Rows(logits.data(), {1, logits.size()})});
  };

  const ds4::SequenceId sequence = executor->open_sequence(context);
  std::vector<double> prefill_rates;
  std::vector<double> decode_rates;
  for (int round = 0; round < options.rounds; ++round) {
    executor->truncate(sequence, 0);
    auto begin = Clock::now();
    run_rows(sequence, 0, options.prefill);
    prefill_rates.push_back(options.prefill / seconds_since(begin));
    begin = Clock::now();
    for (std::uint32_t p = options.prefill; p < options.prefill + options.decode; ++p)
      run_rows(sequence, p, p + 1);
    decode_rates.push_back(options.decode / seconds_since(begin));
  }
  const double bandwidth = read_bandwidth(options.threads, options.rounds);
  const double prefill = median(prefill_rates);
  const double decode = median(decode_rates);
  const auto bytes = static_cast<double>(bytes_per_token(config, weights));
  fmt::print("model            {}\n", options.model);
  fmt::print("device           {}\n", executor->info().device);
  fmt::print("read bandwidth   {:8.2f} GB/s\n", bandwidth / 1e9);
  fmt::print("prefill {:5}    {:8.1f} t/s\n", options.prefill, prefill);
  fmt::print(
      "decode           {:8.2f} t/s, {:.1f} MB a token, {:.2f} GB/s, {:.0f} % of the bandwidth\n",
      decode, bytes / 1e6, decode * bytes / 1e9, 100 * decode * bytes / bandwidth);
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
