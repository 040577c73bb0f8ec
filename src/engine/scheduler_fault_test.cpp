// A device that is lost while answers are in the making: they fail with its message, nothing is
// stored, nothing runs afterwards.
#include <atomic>
#include <condition_variable>
#include <mutex>

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/scheduler.h"
#include "tests/support/scripted_model.h"
#include "tokenizer/markers.h"

namespace ds4 {
namespace {

using namespace std::chrono_literals;

class Client final : public GenerationClient {
 public:
  bool ready() override { return true; }
  void on_start(const ReuseReport&) override {}
  void on_prefill(std::uint32_t, std::uint32_t) override {}
  TokenChoice choice() override { return {}; }
  TokenVerdict on_token(const GeneratedToken&) override {
    ++tokens;
    return TokenVerdict::kContinue;
  }
  TokenInsertion insertion() override { return {}; }
  void on_finish(const GenerationResult& r) override {
    const std::lock_guard lock(mutex_);
    result = r;
    ++finishes;
    finished_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return finished_.wait_for(lock, 10s, [&] { return finishes > 0; });
  }

  std::atomic<int> tokens{0};
  int finishes = 0;
  GenerationResult result;

 private:
  std::mutex mutex_;
  std::condition_variable finished_;
};

// Counts saves; every conversation is due for one soon.
class CountingStore final : public PrefixStore {
 public:
  explicit CountingStore(const std::atomic<bool>& lost) : lost_(lost) {}
  StoredPrefix lookup(const PromptView&) override { return {}; }
  std::unique_ptr<StateLoad> load(const PromptView&, Slot&) override { return nullptr; }
  void save(Slot&, Moment) override { ++(lost_ ? saves_afterwards : saves_before); }
  std::uint32_t cold_length(std::span<const TokenId>, std::uint32_t) const override { return 0; }
  std::uint32_t continued_interval() const override { return 16; }
  std::uint32_t gain_min() const override { return 1; }
  PrefixStoreStats stats() override { return {}; }

  std::atomic<int> saves_before{0};
  std::atomic<int> saves_afterwards{0};

 private:
  const std::atomic<bool>& lost_;
};

GenerationRequest request_for(const Engine& engine, std::string_view text) {
  GenerationRequest request;
  request.prompt.add_control(tokenizer::kBosMarker);
  request.prompt.add_control(tokenizer::kUserMarker);
  request.prompt.add_text(text);
  request.prompt.add_control(tokenizer::kAssistantMarker);
  request.prompt.add_control(tokenizer::kThinkEndMarker);
  request.tokens = engine.tokenizer().encode_rendered(request.prompt);
  request.tokens_max = 10000;
  return request;
}

TEST(SchedulerFault, ALostDeviceFailsWhatIsInFlightAndStoresNothing) {
  std::atomic<bool> lost{false};
  CountingStore store(lost);
  const auto engine = test::scripted_engine({.otherwise = std::string(5000, 'y'),
                                             .per_run = std::chrono::microseconds(200),
                                             .lost_at_run = 40,
                                             .lost = &lost});
  std::mutex mutex;
  std::condition_variable called;
  std::string message;
  SchedulerOptions options;
  options.context = 16384;
  options.slot_count = 2;
  options.on_device_failure = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    message = text;
    called.notify_all();
  };
  Scheduler scheduler(*engine, options, &store);
  const auto first = std::make_shared<Client>();
  const auto second = std::make_shared<Client>();
  const auto waiting = std::make_shared<Client>();
  scheduler.submit(request_for(*engine, "first"), first);
  scheduler.submit(request_for(*engine, "second"), second);
  scheduler.submit(request_for(*engine, "waits for a slot"), waiting);
  for (const auto& client : {first, second}) {
    ASSERT_TRUE(client->wait());
    EXPECT_EQ(client->finishes, 1);
    EXPECT_EQ(client->result.reason, EndReason::kFailed);
    EXPECT_EQ(client->result.error, ErrorCode::kDevice);
    EXPECT_EQ(client->result.message, test::kLostDeviceMessage);
    EXPECT_GT(client->tokens, 0);
  }
  ASSERT_TRUE(waiting->wait());
  EXPECT_NE(waiting->result.reason, EndReason::kEndOfTurn);
  std::unique_lock lock(mutex);
  ASSERT_TRUE(called.wait_for(lock, 10s, [&] { return !message.empty(); }));
  EXPECT_EQ(message, test::kLostDeviceMessage);
  EXPECT_TRUE(scheduler.stats().device_failed);
  EXPECT_GT(store.saves_before, 0);
  scheduler.drain(std::chrono::steady_clock::now() + 1s);
  EXPECT_EQ(store.saves_afterwards, 0);
}

}  // namespace
}  // namespace ds4
