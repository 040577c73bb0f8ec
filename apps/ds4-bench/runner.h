#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "backend/executor.h"
#include "engine/throttle.h"
#include "prompt.h"

namespace ds4::bench {

struct RunnerOptions {
  std::uint32_t users = 1;          // sequences that decode together
  std::uint32_t context = 0;        // of each
  std::uint32_t decode_tokens = 0;  // at each frontier; 0: prompts alone
  std::uint32_t runs = 1;           // of each phase
  double run_seconds_max = 20;      // a phase that took longer is not repeated
  TokenId end_token{1};             // never taken
  bool teacher_forced = false;      // decode the prompt's own continuation instead of greedily
  int power_percent = 100;          // share of the time that the machine works
  std::filesystem::path logits_directory =
      {};  // gets logits-FRONTIER.json of the first user; or empty
};

// One decode phase: seconds of the first step, which follows a prompt, and of the others together.
struct DecodeTime {
  double first_s = 0;
  double rest_s = 0;
};

// What was measured at one frontier.
struct Measurement {
  std::uint32_t context = 0;
  std::uint32_t prefill_from = 0;       // the frontier before
  std::vector<double> prefill_s = {};   // for all users, each run
  std::vector<DecodeTime> decode = {};  // each run
  std::uint64_t state_bytes = 0;        // of one user, portable
};

// Sequences that grow together, one a user.  Extends their prompts to a frontier, timed; keeps
// their ends; decodes, timed; and puts the ends back.  A repetition starts from the frontier
// before in the same way.  Confined to one thread; what it refers to must outlive it.
class Runner {
 public:
  // Throws Error(kOutOfMemory).
  Runner(Executor& executor, const Prompt& prompt, const RunnerOptions& options);
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  ~Runner();

  // `frontier` must be behind the one before, and leave room for the decoded tokens.
  Measurement measure(std::uint32_t frontier);

 private:
  // The parts of a state that later tokens overwrite, by user and section.
  using Ends = std::vector<std::vector<std::vector<std::byte>>>;

  void run(const BatchOutputs& outputs, bool split);
  double extend(std::uint32_t frontier);
  DecodeTime decode();
  void step(std::vector<TokenId>& next, std::uint32_t index);
  Ends keep_ends() const;
  void put_back(const Ends& ends, std::uint32_t length);
  void write_logits(std::uint32_t frontier) const;

  Executor& executor_;
  const Prompt& prompt_;
  const RunnerOptions options_;
  std::vector<SequenceId> sequences_;
  std::vector<float> logits_;  // [users, vocab_size]
  // Where the executor keeps logits, a step hands over the likeliest token instead.
  std::vector<sample::CandidateQuery> queries_;
  std::vector<sample::CandidateSet> candidates_;
  std::vector<BatchRow> rows_;
  Throttle throttle_;
  std::uint32_t length_ = 0;
};

}  // namespace ds4::bench
