// ds4-bench: how fast a model runs.  At each context length (frontier) it extends the prompt,
// timed, keeps the state's end, decodes greedily, timed, and puts the state back.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "common/output.h"
#include "runtime/open.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  ds4::OpenOptions open;
  std::vector<std::uint32_t> frontiers = {2048, 8192, 32768};
  std::uint32_t decode_tokens = 128;
  std::uint32_t users = 1;
  std::int32_t end_token = 1;
  std::string csv;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One measured frontier.
struct Measurement {
  std::uint32_t context = 0;
  std::uint32_t prefill_tokens = 0;  // of each user
  double prefill_s = 0;
  std::uint32_t decode_tokens = 0;  // of each user
  double decode_s = 0;
  std::uint64_t state_bytes = 0;  // of one user, portable
};

// Sequences that grow together, one a user.
class Bench {
 public:
  Bench(ds4::Executor& executor, const Options& options)
      : executor_(executor),
        options_(options),
        logits_(std::size_t{options.users} * executor.config().vocab_size) {
    for (std::uint32_t u = 0; u < options.users; ++u)
      sequences_.push_back(executor.open_sequence(options.open.context));
  }

  Measurement measure(std::uint32_t frontier) {
    Measurement m;
    m.context = frontier;
    m.prefill_tokens = frontier - length_;
    auto start = Clock::now();
    for (const ds4::SequenceId sequence : sequences_)
      extend(sequence, frontier);
    m.prefill_s = seconds_since(start);
    length_ = frontier;
    const auto kept = keep_ends();
    for (const ds4::StateSection& section : executor_.layout().sections(frontier))
      m.state_bytes += section.bytes();
    m.decode_tokens = options_.decode_tokens;
    std::vector<ds4::TokenId> next(sequences_.size(), ds4::TokenId{prompt_token(frontier)});
    step(next, 0);  // makes what the first step makes once: recordings, first touches
    start = Clock::now();
    for (std::uint32_t i = 0; i < m.decode_tokens; ++i)
      step(next, i + 1);
    m.decode_s = seconds_since(start);
    put_back(kept);
    return m;
  }

 private:
  using Kept = std::vector<std::vector<std::byte>>;

  // A prompt of pseudo-random ids, the same in every run.
  std::int32_t prompt_token(std::uint32_t position) const {
    const std::uint32_t vocab = executor_.config().vocab_size;
    return static_cast<std::int32_t>((position * 2654435761U >> 8) % vocab);
  }

  void extend(ds4::SequenceId sequence, std::uint32_t frontier) {
    std::vector<ds4::BatchRow> rows;
    const std::uint32_t chunk = executor_.info().rows_max;
    for (std::uint32_t p = length_; p < frontier; ++p) {
      const bool last = p + 1 == frontier;
      rows.push_back({ds4::TokenId{prompt_token(p)}, ds4::Position{p}, sequence, last});
      if (rows.size() < chunk && !last) continue;
      const std::size_t count = last ? 1 : 0;
      executor_.run({rows},
                    {.logits = ds4::Rows(logits_.data(), {count, executor_.config().vocab_size})});
      rows.clear();
    }
  }

  // One token for every user; `next` becomes their greedy successors.
  void step(std::vector<ds4::TokenId>& next, std::uint32_t index) {
    std::vector<ds4::BatchRow> rows;
    for (std::size_t u = 0; u < sequences_.size(); ++u)
      rows.push_back({next[u], ds4::Position{length_ + index}, sequences_[u], true});
    const std::size_t vocab = executor_.config().vocab_size;
    executor_.run({rows}, {.logits = ds4::Rows(logits_.data(), {rows.size(), vocab})});
    for (std::size_t u = 0; u < sequences_.size(); ++u) {
      float* begin = logits_.data() + u * vocab;
      if (static_cast<std::size_t>(options_.end_token) < vocab) begin[options_.end_token] = -1e30F;
      next[u] =
          ds4::TokenId{static_cast<std::int32_t>(std::max_element(begin, begin + vocab) - begin)};
    }
  }

  std::vector<Kept> keep_ends() const {
    std::vector<Kept> kept;
    for (const ds4::SequenceId sequence : sequences_) {
      kept.emplace_back();
      for (const ds4::StateSection& section : executor_.layout().frontier_sections(length_)) {
        kept.back().emplace_back(section.bytes());
        executor_.read_state(sequence, section, kept.back().back());
      }
    }
    return kept;
  }

  void put_back(const std::vector<Kept>& kept) {
    for (std::size_t u = 0; u < sequences_.size(); ++u) {
      executor_.begin_restore(sequences_[u], length_);
      const auto sections = executor_.layout().frontier_sections(length_);
      for (std::size_t i = 0; i < sections.size(); ++i)
        executor_.write_state(sequences_[u], sections[i], kept[u][i]);
    }
  }

  ds4::Executor& executor_;
  const Options& options_;
  std::vector<ds4::SequenceId> sequences_;
  std::vector<float> logits_;
  std::uint32_t length_ = 0;
};

std::string csv_line(const Measurement& m, std::uint32_t users, const ds4::ExecutorInfo& info) {
  const double prefilled = static_cast<double>(m.prefill_tokens) * users;
  const double decoded = static_cast<double>(m.decode_tokens) * users;
  return fmt::format("{},{},{:.4f},{:.2f},{},{},{:.4f},{:.2f},{},{},\"{}\"\n", m.context,
                     m.prefill_tokens, m.prefill_s, prefilled / m.prefill_s, users, m.decode_tokens,
                     m.decode_s, decoded / m.decode_s, m.state_bytes, info.backend, info.device);
}

void run(Options options) {
  std::sort(options.frontiers.begin(), options.frontiers.end());
  options.open.context = options.frontiers.back() + options.decode_tokens + 2;
  options.open.session_count = options.users;
  options.open.log = [](ds4::LogLevel, std::string_view line) {
    ds4::app::write_note(fmt::format("{}\n", line));
  };
  const auto start = Clock::now();
  const ds4::OpenedExecutor opened = ds4::open_executor(options.open);
  ds4::Executor& executor = *opened.executor;
  Bench bench(executor, options);
  ds4::app::write_note(fmt::format("{}: {}; ready in {:.2f} s\n", executor.info().backend,
                                   executor.info().device, seconds_since(start)));
  for (const ds4::MemoryItem& item : executor.memory())
    ds4::app::write_note(
        fmt::format("{}: {:.1f} MiB\n", item.name, static_cast<double>(item.bytes) / (1 << 20)));
  std::string table =
      "context,prefill_tokens,prefill_s,prefill_tps,users,decode_tokens,decode_s,decode_tps,state_"
      "bytes,"
      "backend,device\n";
  ds4::app::write_out(table);
  for (const std::uint32_t frontier : options.frontiers) {
    const std::string line = csv_line(bench.measure(frontier), options.users, executor.info());
    ds4::app::write_out(line);
    table += line;
  }
  if (options.csv.empty()) return;
  ds4::AtomicFileWriter file(options.csv);
  file.write(table);
  file.commit();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Measures prefill and decode of a model at growing context lengths.", "ds4-bench"};
  app.add_option("-m,--model", options.open.model, "model file")->required();
  app.add_option("--backend", options.open.backend, "auto, cpu or cuda");
  app.add_option("--frontiers", options.frontiers, "context lengths to measure at")->delimiter(',');
  app.add_option("-n,--tokens", options.decode_tokens, "tokens to decode at each frontier");
  app.add_option("--batch", options.users, "sequences that decode together")
      ->check(CLI::Range(1, 32));
  app.add_option("--chunk", options.open.rows_max,
                 "rows of one prefill batch; 0: the backend's default");
  app.add_option("--threads", options.open.thread_count, "processor threads; 0: one per core");
  app.add_option("--end-token", options.end_token, "token that greedy decoding never takes");
  app.add_option("--stage-times", options.open.stage_times,
                 "seconds by stage to this file; slows the run (cuda)");
  app.add_option("--csv", options.csv, "also write the table to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    run(std::move(options));
  } catch (const ds4::Error& error) {
    ds4::app::write_note(fmt::format("ds4-bench: {}\n", error.what()));
    return 1;
  }
  return 0;
}
