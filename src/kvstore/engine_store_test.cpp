// The scheduler over a store: what memory forgets comes back from the disk, and no step waits.
#include "kvstore/engine_store.h"

#include <atomic>
#include <condition_variable>
#include <thread>

#include <gtest/gtest.h>

#include "engine/prompt_key.h"
#include "engine/scheduler.h"
#include "kvstore/test_store.h"
#include "tests/support/scripted_model.h"
#include "tokenizer/markers.h"

namespace ds4::kvstore {
namespace {

using namespace std::chrono_literals;
using tokenizer::RenderedPrompt;

class Client final : public GenerationClient {
 public:
  explicit Client(const tokenizer::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  bool ready() override { return true; }
  void on_start(const ReuseReport& r) override { report = r; }
  void on_prefill(std::uint32_t, std::uint32_t) override {}
  TokenChoice choice() override { return {}; }
  TokenVerdict on_token(const GeneratedToken& token) override {
    const auto now = std::chrono::steady_clock::now();
    if (tokens > 0) gap_max = std::max(gap_max, now - last_);
    last_ = now;
    text += tokenizer_.token_bytes(token.token);
    ++tokens;
    return TokenVerdict::kContinue;
  }
  TokenInsertion insertion() override { return {}; }
  void on_finish(const GenerationResult& r) override {
    const std::lock_guard lock(mutex_);
    result = r;
    done_ = true;
    finished_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return finished_.wait_for(lock, 60s, [&] { return done_; });
  }

  std::stop_source stop;
  std::atomic<std::uint32_t> tokens{0};
  ReuseReport report;
  GenerationResult result;
  std::string text;
  std::chrono::steady_clock::duration gap_max{};

 private:
  const tokenizer::Tokenizer& tokenizer_;
  std::chrono::steady_clock::time_point last_{};
  std::mutex mutex_;
  std::condition_variable finished_;
  bool done_ = false;
};

void add_question(RenderedPrompt& prompt, std::string_view text) {
  prompt.add_control(tokenizer::kUserMarker);
  prompt.add_text(text);
  prompt.add_control(tokenizer::kAssistantMarker);
  prompt.add_control(tokenizer::kThinkEndMarker);
}

RenderedPrompt conversation(std::string_view system, std::string_view question) {
  RenderedPrompt prompt;
  prompt.add_control(tokenizer::kBosMarker);
  prompt.add_text(system);
  add_question(prompt, question);
  return prompt;
}

void add_turn(RenderedPrompt& prompt, std::string_view answer, std::string_view question) {
  prompt.add_text(answer);
  prompt.add_control(tokenizer::kEosMarker);
  add_question(prompt, question);
}

class EngineStoreTest : public StoreTest {
 protected:
  EngineStoreOptions store_options() {
    EngineStoreOptions result;
    result.store = options();  // chunks of 128 tokens, a state at every second one
    result.store.log = [this](LogLevel, std::string_view message) {
      const std::lock_guard lock(lines_mutex_);
      lines_.emplace_back(message);
    };
    result.store.step_hook = [this](WriteStep, const std::filesystem::path&) {
      if (const auto pause = step_pause_.load(); pause > 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(pause));
    };
    result.tokens_min = 64;
    result.continued_interval = 256;
    return result;
  }

  void open(std::uint32_t slot_count = 2, test::ScriptedOptions script = {}) {
    script.rules = {{"think", "hidden thoughts</think>shown"},
                    {"long", std::string(600, 'y')},
                    {"again", "once more"}};
    engine_ = test::scripted_engine(script);
    store_ = std::make_unique<EngineStore>(*engine_, store_options());
    scheduler_ = std::make_unique<Scheduler>(
        *engine_,
        SchedulerOptions{.context = 8192, .slot_count = slot_count, .checkpoint_interval = 128},
        store_.get());
  }
  void TearDown() override {
    scheduler_.reset();
    store_.reset();
    engine_.reset();
    StoreTest::TearDown();
  }
  // As after SIGTERM.
  void close() {
    scheduler_->drain(std::chrono::steady_clock::now() + 20s);
    scheduler_.reset();
    store_.reset();
    engine_.reset();
  }
  // As after kill -9: what the scheduler would have saved now is lost.
  void kill() {
    store_->flush();
    {
      const std::filesystem::path kept = directory_.string() + ".kept";
      std::filesystem::remove_all(kept);
      std::filesystem::copy(directory_, kept, std::filesystem::copy_options::recursive);
      close();
      std::filesystem::remove_all(directory_);
      std::filesystem::rename(kept, directory_);
    }
  }

  std::shared_ptr<Client> submit(const RenderedPrompt& prompt, std::string name_space = "") {
    auto client = std::make_shared<Client>(engine_->tokenizer());
    GenerationRequest request;
    request.prompt = prompt;
    request.tokens = engine_->tokenizer().encode_rendered(prompt);
    request.tokens_max = 2000;
    request.name_space = std::move(name_space);
    request.stop = client->stop.get_token();
    scheduler_->submit(std::move(request), client);
    return client;
  }
  std::shared_ptr<Client> ask(const RenderedPrompt& prompt, std::string name_space = "") {
    auto client = submit(prompt, std::move(name_space));
    EXPECT_TRUE(client->wait());
    EXPECT_EQ(client->result.reason, EndReason::kEndOfTurn);
    return client;
  }
  static std::uint32_t evaluated(const Client& client) {
    return client.report.prompt_tokens - client.report.reused_tokens;
  }
  MissNote disk_note(const Client& client, const RenderedPrompt& prompt) {
    EXPECT_TRUE(client.report.explain_store != nullptr);
    return client.report.explain_store ? client.report.explain_store(prompt_key(prompt))
                                       : MissNote{};
  }

  std::mutex lines_mutex_;
  std::atomic<int> step_pause_{0};
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<EngineStore> store_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(EngineStoreTest, AConversationOutlivesARestart) {
  open();
  RenderedPrompt prompt = conversation(std::string(500, 's'), "first");
  ask(prompt);
  close();
  open();
  add_turn(prompt, "Hello.", "again");
  const auto second = ask(prompt);
  EXPECT_EQ(second->report.source, ReuseSource::kDisk);
  EXPECT_EQ(second->text, "once more<｜end▁of▁sentence｜>");
  // The end marker, which was drawn and not evaluated, and the new turn.
  EXPECT_EQ(evaluated(*second), 1 + 1 + 5 + 2U);
}

TEST_F(EngineStoreTest, AClientThatHidesTheReasoningContinuesAfterARestart) {
  open();
  RenderedPrompt prompt = conversation(std::string(500, 's'), "think");
  const auto first = ask(prompt);
  RenderedPrompt visible = prompt;
  visible.add_text("shown");
  visible.add_control(tokenizer::kEosMarker);
  scheduler_->remember(first->result.ticket, {{prompt_key(visible), {}}});
  close();
  open();
  add_turn(prompt, "shown", "again");
  const auto second = ask(prompt);
  EXPECT_EQ(second->report.source, ReuseSource::kDisk);
  EXPECT_EQ(evaluated(*second), 1 + 1 + 5 + 2U);
  EXPECT_EQ(second->text, "once more<｜end▁of▁sentence｜>");
  close();
  // The catalogue is made again from the files, aliases included.
  for (const char* suffix : {"", "-wal", "-shm"})
    std::filesystem::remove(directory_ / (std::string("catalogue.sqlite") + suffix));
  open();
  EXPECT_EQ(ask(prompt)->report.source, ReuseSource::kDisk);
}

TEST_F(EngineStoreTest, WhatWasSavedIsThereAfterAKill) {
  open();
  RenderedPrompt prompt = conversation(std::string(500, 's'), "long");
  ask(prompt);  // about 1,100 tokens: saved when read, then at each multiple of 256
  kill();
  open();
  add_turn(prompt, std::string(600, 'y'), "again");
  const auto second = ask(prompt);
  EXPECT_EQ(second->report.source, ReuseSource::kDisk);
  EXPECT_EQ(second->report.reused_tokens, 1024U);
}

TEST_F(EngineStoreTest, AnEvictedConversationComesBack) {
  open(1);
  RenderedPrompt a = conversation(std::string(300, 'a'), "first");
  RenderedPrompt b = conversation(std::string(300, 'b'), "first");
  ask(a);
  ask(b);
  store_->flush();
  add_turn(a, "Hello.", "again");
  add_turn(b, "Hello.", "again");
  for (const RenderedPrompt* prompt : {&a, &b}) {
    const auto next = ask(*prompt);
    EXPECT_EQ(next->report.source, ReuseSource::kDisk);
    EXPECT_EQ(evaluated(*next), 1 + 1 + 5 + 2U);
    EXPECT_EQ(next->text, "once more<｜end▁of▁sentence｜>");
    store_->flush();
  }
  // A conversation keeps one tail: the longer one took the place of those before it.
  std::size_t tails = 0;
  for (const EntryRow& row : store_->store().entries())
    tails += row.kind == EntryKind::kTail && row.role != EntryRole::kAnchor ? 1 : 0;
  EXPECT_LE(tails, 2U);
}

TEST_F(EngineStoreTest, ABeginningIsSharedByConversationsThatDiffer) {
  open(1);
  const std::string system(700, 's');
  ask(conversation(system, "first"));
  store_->flush();
  kill();
  open(1);
  const auto other = ask(conversation(system, "quite another"));
  EXPECT_EQ(other->report.source, ReuseSource::kDisk);
  EXPECT_EQ(other->report.reused_tokens, 1 + 700U) << "up to the question's marker";
}

TEST_F(EngineStoreTest, NamespacesShareNothing) {
  open(1);
  const RenderedPrompt prompt = conversation(std::string(500, 's'), "first");
  ask(prompt, "alice");
  close();
  open(1);
  EXPECT_EQ(ask(prompt, "bob")->report.reused_tokens, 0U);
  EXPECT_EQ(ask(prompt, "alice in chains: a name for no file")->report.reused_tokens, 0U);
  EXPECT_GT(ask(prompt, "alice")->report.reused_tokens, 500U);
}

TEST_F(EngineStoreTest, EveryMissIsExplained) {
  open(1);
  const RenderedPrompt nothing = conversation(std::string(300, 'n'), "first");
  const auto cold = ask(nothing);
  EXPECT_EQ(cold->report.reason, "nothing-in-memory");
  EXPECT_EQ(disk_note(*cold, nothing).reason, "nothing-saved");
  store_->flush();

  std::string system(600, 's');
  ask(conversation(system, "first"));
  close();
  open(1);
  system[450] = 'X';
  const RenderedPrompt changed = conversation(system, "first");
  const auto missed = ask(changed);
  // States lie at 256 and 512 tokens.
  EXPECT_EQ(missed->report.reused_tokens, 256U);
  const MissNote note = disk_note(*missed, changed);
  EXPECT_EQ(note.reason, "differs");
  EXPECT_EQ(note.agreed_tokens, 384U);
  const std::size_t marker = prompt_key(changed).find("ssss");
  EXPECT_EQ(note.first_difference, marker + 450);
  EXPECT_NE(note.saved.find("ssss"), std::string::npos);

  // In memory, the same is said of the conversation that is there.
  system[100] = 'Y';
  const auto third = ask(conversation(system, "first"));
  EXPECT_EQ(third->report.reason, "differs");
  EXPECT_EQ(third->report.first_difference, marker + 100);
}

TEST_F(EngineStoreTest, NoStepWaitsForTheDisk) {
  open(2, {.per_run = 500us});
  step_pause_ = 300;  // at every file created, written, synced and named
  const auto decoding = submit(conversation(std::string(700, 'd'), "long"));
  while (decoding->tokens == 0)
    std::this_thread::sleep_for(1ms);
  // Read, saved and evicted while the other one decodes.
  ask(conversation(std::string(900, 'a'), "first"));
  ask(conversation(std::string(900, 'b'), "first"));
  EXPECT_TRUE(decoding->wait());
  EXPECT_GT(store_->stats().pending_bytes, 0U) << "the disk was to be slow";
  EXPECT_LT(decoding->gap_max, 200ms);
  step_pause_ = 0;
}

TEST_F(EngineStoreTest, ADamagedFileMeansReadingThePromptAgain) {
  open(1);
  RenderedPrompt prompt = conversation(std::string(500, 's'), "first");
  ask(prompt);
  close();
  for (const char* folder : {"chunks", "tails"})
    for (const auto& path : files_in(directory_ / folder))
      std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  open(1);
  add_turn(prompt, "Hello.", "again");
  const auto second = ask(prompt);
  EXPECT_EQ(second->report.source, ReuseSource::kCold);
  EXPECT_EQ(second->text, "once more<｜end▁of▁sentence｜>");
  EXPECT_EQ(store_->stats().load_failures, 1U);
}

TEST_F(EngineStoreTest, ADirectoryThatCannotBeWrittenStopsNothing) {
  open(1);
  ask(conversation(std::string(500, 's'), "first"));
  step_pause_ = 0;
  store_->flush();
  std::filesystem::remove_all(directory_ / "tmp");  // nothing can be written from now on
  ask(conversation(std::string(500, 't'), "first"));
  ask(conversation(std::string(500, 'u'), "first"));
  store_->flush();
  EXPECT_GT(store_->stats().save_failures, 0U);
  EXPECT_TRUE(logged("not saved"));
  std::filesystem::create_directory(directory_ / "tmp");
}

TEST_F(EngineStoreTest, AClientThatLeavesDuringALoadLeavesAnEmptySlot) {
  open(1);
  RenderedPrompt prompt = conversation(std::string(3000, 's'), "first");
  ask(prompt);
  close();
  open(1);
  auto leaving = std::make_shared<Client>(engine_->tokenizer());
  GenerationRequest request;
  request.prompt = prompt;
  request.tokens = engine_->tokenizer().encode_rendered(prompt);
  request.tokens_max = 10;
  request.stop = leaving->stop.get_token();
  scheduler_->submit(std::move(request), leaving);
  leaving->stop.request_stop();
  scheduler_->wake();
  ASSERT_TRUE(leaving->wait());
  EXPECT_EQ(ask(prompt)->text, "Hello.<｜end▁of▁sentence｜>");
}

}  // namespace
}  // namespace ds4::kvstore
