#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/sched_queue.h"
#include "engine/sched_slot.h"
#include "engine/scheduler.h"

namespace ds4 {

// An answer in the making.  Confined to the engine's thread.
struct Scheduler::Active {
  enum class Phase {
    kLoad,     // its beginning comes from the store
    kPrefill,  // tokens of `whole` are to be evaluated
    kDecode,   // one drawn token is to be evaluated
    kDone,
  };

  Active(QueuedGeneration item, Slot& its_slot, std::size_t vocab_size)
      : request(std::move(item.request)),
        client(std::move(item.client)),
        arrived(item.arrived),
        slot(its_slot),
        sampler(vocab_size, request.seed) {}

  GenerationRequest request;
  std::shared_ptr<GenerationClient> client;
  std::chrono::steady_clock::time_point arrived;
  std::chrono::steady_clock::time_point started{};
  std::chrono::steady_clock::time_point decoding{};
  Slot& slot;
  SlotTicket ticket;
  sample::Sampler sampler;
  Phase phase = Phase::kPrefill;
  std::unique_ptr<StateLoad> load;  // kLoad
  std::uint32_t failed_loads = 0;
  ReuseReport report;
  std::vector<TokenId> whole;  // the transcript to evaluate: the prompt, or what was inserted
  TokenId pending{};           // kDecode: drawn and not evaluated
  std::size_t result = 0;      // of the step's batch, the one to draw from
  std::uint32_t prompt_tokens = 0;
  std::uint32_t reused_tokens = 0;
  std::uint32_t generated_tokens = 0;
  std::uint32_t cold_length = 0;   // where the store wants a cold prompt; 0: nowhere
  std::uint32_t saved_tokens = 0;  // what the store has been given, or had
  std::uint64_t served_turn = 0;   // the step that last read its prompt
  ErrorCode error = ErrorCode::kInternal;
  std::string message;
};

}  // namespace ds4
