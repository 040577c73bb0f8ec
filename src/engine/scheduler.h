#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "engine/engine.h"
#include "engine/prefix_store.h"
#include "engine/sched_batch.h"
#include "engine/sched_queue.h"
#include "engine/sched_request.h"
#include "engine/sched_slot.h"

namespace ds4 {

struct SchedulerOptions {
  std::uint32_t context = 32768;  // tokens of every slot
  std::uint32_t slot_count = 4;   // conversations resident, and answers in the making
  std::uint32_t queue_max = 64;   // requests waiting beyond those
  // A step that also decodes reads at most as many prompt tokens as are thought to take this long.
  std::chrono::milliseconds step_target{150};
  std::uint32_t checkpoint_interval = 512;
  std::uint32_t checkpoint_count = 16;
  LogSink log = {};
  // Called once on the engine's thread when the device has failed; nothing runs afterwards.
  std::function<void(const std::string& message)> on_device_failure = {};
};

// Counts since the start, and what is there now.
struct SchedulerStats {
  std::uint64_t requests = 0;
  std::uint64_t rejected = 0;
  std::uint64_t prefill_tokens = 0;
  std::uint64_t decode_tokens = 0;
  std::uint64_t reused_tokens = 0;
  std::uint64_t steps = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t failed = 0;
  std::uint64_t evictions = 0;  // conversations dropped for others
  std::uint32_t queued = 0;
  std::uint32_t active = 0;
  double seconds_in_step = 0;              // of the batch that runs now; 0: none does
  std::vector<std::uint32_t> slot_tokens;  // [slot_count] live tokens
  std::vector<std::uint64_t> by_source;    // [ReuseSource] answers begun
  bool device_failed = false;
  std::optional<PrefixStoreStats> store = {};  // when there is one
};

// Continuous batching: many answers over one executor.  One thread of its own owns the engine; each
// step it runs one batch that holds a row for every answer being decoded and, within a bound, rows
// of prompts being read.  Conversations stay resident in slots, and a request continues from the
// slot that shares most with it (docs/architecture.md, the life of a request).  submit(),
// remember(), wake(), stats(), take_longest_step_seconds() may be called from any thread.
class Scheduler {
 public:
  // Allocates every slot.  Throws Error(kOutOfMemory).  `engine` and `store` (may be null) must
  // outlive the scheduler and are its thread's alone meanwhile.
  Scheduler(Engine& engine, const SchedulerOptions& options, PrefixStore* store = nullptr);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;
  // Cancels what is left.
  ~Scheduler();

  // Queues a request; `client` takes the answer.  Throws Error(kBusy) when the queue is full,
  // Error(kContextOverflow) when the prompt leaves no room, Error(kCancelled) when draining.
  void submit(GenerationRequest request, std::shared_ptr<GenerationClient> client);
  // Tells how a client may send back the conversation that an answer left; nothing when the slot
  // has moved on.  Takes effect before any later submit().
  void remember(const SlotTicket& ticket, std::vector<VisibleTurn> turns);
  // For clients whose ready() turned true, and whoever requested a stop.
  void wake();

  // Refuses new requests, lets the running ones end until `deadline`, cancels the rest, gives the
  // slots to the store and ends the thread.  Call once.
  void drain(std::chrono::steady_clock::time_point deadline);

  SchedulerStats stats();
  // Of the longest batch since the last call.
  double take_longest_step_seconds();
  const SchedulerOptions& options() const { return options_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Active;
  struct Remembered {
    SlotTicket ticket;
    std::vector<VisibleTurn> turns;
  };

  void run(std::stop_token stop);
  bool wait_for_work(std::stop_token stop);
  bool is_runnable() const;
  void take_inbox();
  void reap_cancelled();
  void admit();
  void publish();
  // Where a prompt is to begin.
  struct Beginning {
    Slot* slot = nullptr;
    SlotMatch match;
    bool from_disk = false;
    ReuseReport report;  // why not more
  };
  Beginning choose_slot(const PromptView& prompt);
  void diagnose(const PromptView& prompt, ReuseReport& report) const;
  Active& occupy(QueuedGeneration item, Slot& slot);
  void start(Active& active, const SlotMatch& match);
  void advance_loads();
  void end_load(Active& active, bool loaded);
  Slot* best_continuation(const PromptView& prompt, SlotMatch& match);
  Slot* cheapest_victim();
  void try_fork(const PromptView& prompt, Slot& slot, SlotMatch& match);
  bool try_disk(const PromptView& prompt, Beginning& beginning);

  void step();
  void stage_decodes();
  void stage_prefills();
  std::uint32_t prefill_budget() const;
  void stage(Active& active, std::span<const TokenId> tokens, bool wants_result);
  void run_batch();
  void commit_batch();
  void choose_next(Active& active);
  void draw_next(Active& active);
  void insert(Active& active);
  void finish(Active& active, EndReason reason);
  void remove_finished();
  void fail_all(ErrorCode code, const std::string& message);
  void save_if_due(Active& active);
  void save_slots();
  static void refuse(QueuedGeneration& item, EndReason reason);

  Engine& engine_;
  const SchedulerOptions options_;
  PrefixStore* store_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<std::unique_ptr<Active>> active_;
  GenerationQueue queue_;
  std::uint64_t serial_ = 0;
  std::uint64_t turn_ = 0;  // counts steps, for taking turns in prefill

  // One step's batch.
  struct Staged {
    Active* active;
    std::span<const TokenId> tokens;
    bool wants_result;
  };
  StepBatch batch_;
  std::vector<Staged> staged_;
  double seconds_per_row_ = 0;

  // Between threads.
  std::mutex mutex_;
  std::condition_variable_any wakened_;
  std::vector<QueuedGeneration> inbox_;
  std::vector<Remembered> remembered_;
  std::size_t waiting_ = 0;  // inbox and queue
  bool wake_ = false;
  bool draining_ = false;
  SchedulerStats stats_;
  Clock::time_point step_began_{};  // of the batch that runs now
  double longest_step_seconds_ = 0;
  std::atomic<bool> dead_{false};
  std::jthread thread_;  // last: it uses everything above
};

}  // namespace ds4
