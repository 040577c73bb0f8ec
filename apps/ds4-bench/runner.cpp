#include "runner.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "sample/sampler.h"

namespace ds4::bench {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Runner::Runner(Executor& executor, const Prompt& prompt, const RunnerOptions& options)
    : executor_(executor),
      prompt_(prompt),
      options_(options),
      logits_(std::size_t{options.users} * executor.config().vocab_size) {
  throttle_.set_percent(options.power_percent);
  for (std::uint32_t u = 0; u < options.users; ++u)
    sequences_.push_back(executor.open_sequence(options.context));
  if (options.users > executor.info().candidate_rows_max) return;
  queries_.assign(options.users, {sample::SamplingOptions::greedy(), options.end_token});
  candidates_.resize(options.users);
  for (sample::CandidateSet& set : candidates_)
    set.reserve();
}

Runner::~Runner() {
  for (const SequenceId sequence : sequences_)
    executor_.close_sequence(sequence);
}

Measurement Runner::measure(std::uint32_t frontier) {
  DS4_CHECK(frontier > length_ && frontier + options_.decode_tokens < options_.context);
  Measurement m{.context = frontier, .prefill_from = length_};
  const std::uint32_t before = length_;
  const Ends start = keep_ends();
  const auto goes_on = [&](std::size_t done, double seconds) {
    return done < options_.runs && (done == 0 || seconds <= options_.run_seconds_max);
  };
  for (double seconds = 0; goes_on(m.prefill_s.size(), seconds);) {
    if (!m.prefill_s.empty()) put_back(start, before);
    seconds = extend(frontier);
    m.prefill_s.push_back(seconds);
  }
  if (!options_.logits_directory.empty()) write_logits(frontier);
  for (const StateSection& section : executor_.layout().sections(frontier))
    m.state_bytes += section.bytes();
  if (options_.decode_tokens == 0) return m;
  const Ends ends = keep_ends();
  // What the first step makes once, recordings and first touches, belongs to no user's answer.
  std::vector<TokenId> ignored(sequences_.size(), prompt_.at(frontier, 0));
  step(ignored, 0);
  for (double seconds = 0; goes_on(m.decode.size(), seconds);) {
    put_back(ends, frontier);
    m.decode.push_back(decode());
    seconds = m.decode.back().first_s + m.decode.back().rest_s;
  }
  put_back(ends, frontier);
  return m;
}

// Runs rows_ under the throttle, which pauses between the layers of a prompt's chunk.
void Runner::run(const BatchOutputs& outputs, bool split) {
  throttle_.start();
  executor_.set_layer_hook(split && throttle_.percent() < 100
                               ? [](void* context) { static_cast<Throttle*>(context)->pause(); }
                               : Executor::LayerHook{},
                           &throttle_);
  executor_.run({rows_}, outputs);
  executor_.set_layer_hook(nullptr, nullptr);
  throttle_.pause();
}

double Runner::extend(std::uint32_t frontier) {
  const std::uint32_t chunk = executor_.info().rows_max;
  const std::size_t vocab = executor_.config().vocab_size;
  const auto start = Clock::now();
  for (std::uint32_t u = 0; u < sequences_.size(); ++u) {
    for (std::uint32_t first = length_; first < frontier; first += chunk) {
      const std::uint32_t end = std::min(frontier, first + chunk);
      rows_.clear();
      for (std::uint32_t p = first; p < end; ++p)
        rows_.push_back({prompt_.at(p, u), Position{p}, sequences_[u], p + 1 == frontier});
      BatchOutputs outputs;
      if (end == frontier) outputs.logits = Rows(logits_.data() + u * vocab, {1, vocab});
      run(outputs, true);
    }
  }
  const double seconds = seconds_since(start);
  length_ = frontier;
  return seconds;
}

// The prompt's next token first, whatever its logits were, so that every run does the same work.
DecodeTime Runner::decode() {
  std::vector<TokenId> next;
  for (std::uint32_t u = 0; u < sequences_.size(); ++u)
    next.push_back(prompt_.at(length_, u));
  DecodeTime time;
  auto start = Clock::now();
  step(next, 0);
  time.first_s = seconds_since(start);
  start = Clock::now();
  for (std::uint32_t i = 1; i < options_.decode_tokens; ++i)
    step(next, i);
  time.rest_s = seconds_since(start);
  return time;
}

// One token for every user; `next` becomes what follows.
void Runner::step(std::vector<TokenId>& next, std::uint32_t index) {
  const std::size_t vocab = executor_.config().vocab_size;
  rows_.clear();
  for (std::size_t u = 0; u < sequences_.size(); ++u)
    rows_.push_back({next[u], Position{length_ + index}, sequences_[u], true});
  BatchOutputs outputs{.queries = queries_, .candidates = candidates_};
  if (candidates_.empty()) outputs.logits = Rows(logits_.data(), {rows_.size(), vocab});
  run(outputs, false);
  for (std::uint32_t u = 0; u < sequences_.size(); ++u) {
    if (options_.teacher_forced)
      next[u] = prompt_.at(length_ + index + 1, u);
    else if (candidates_.empty())
      next[u] = sample::argmax_excluding(std::span(logits_).subspan(u * vocab, vocab),
                                         options_.end_token);
    else
      next[u] = candidates_[u].entries.front().token;
  }
}

Runner::Ends Runner::keep_ends() const {
  Ends ends;
  for (const SequenceId sequence : sequences_) {
    ends.emplace_back();
    for (const StateSection& section : executor_.layout().frontier_sections(length_)) {
      ends.back().emplace_back(section.bytes());
      executor_.read_state(sequence, section, ends.back().back());
    }
  }
  return ends;
}

void Runner::put_back(const Ends& ends, std::uint32_t length) {
  const auto sections = executor_.layout().frontier_sections(length);
  for (std::size_t u = 0; u < sequences_.size(); ++u) {
    if (length == 0) {
      executor_.truncate(sequences_[u], 0);
      continue;
    }
    executor_.begin_restore(sequences_[u], length);
    for (std::size_t i = 0; i < sections.size(); ++i)
      executor_.write_state(sequences_[u], sections[i], ends[u][i]);
  }
  length_ = length;
}

void Runner::write_logits(std::uint32_t frontier) const {
  const std::size_t vocab = executor_.config().vocab_size;
  AtomicFileWriter file(options_.logits_directory / fmt::format("logits-{}.json", frontier));
  file.write(fmt::format("{{\"ctx_tokens\": {}, \"logits\": [", frontier));
  for (std::size_t i = 0; i < vocab; ++i)
    file.write(fmt::format("{}{:.9g}", i == 0 ? "" : ", ", logits_[i]));
  file.write("]}\n");
  file.commit();
}

}  // namespace ds4::bench
