#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "kvstore/store.h"
#include "kvstore/test_state.h"

// A directory and shorthand for tests of the store.
namespace ds4::kvstore {

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    // Memory where there is some: thousands of synced files take minutes on a slow disk.
    const std::filesystem::path memory = "/dev/shm";
    directory_ =
        (::access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::path(testing::TempDir())) /
        (std::string("kv-") + std::to_string(::getpid()) + "-" +
         testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // Chunks of 128 tokens, a resume state every second one.
  StoreOptions options() {
    StoreOptions options;
    options.directory = directory_;
    options.chunk_tokens = 128;
    options.state_stride_chunks = 2;
    options.log = [this](LogLevel, std::string_view message) { lines_.emplace_back(message); };
    options.clock_s = [this] { return now_s_; };
    return options;
  }

  static SaveOutcome save(Store& store,
                          const KeySpace& space,
                          const Conversation& talk,
                          std::set<std::uint64_t> checkpoints = {},
                          std::optional<EntryId> replaces = std::nullopt,
                          SaveExtent extent = SaveExtent::kChunksAndTail) {
    SyntheticState state(space.model().layout, talk.tokens, std::move(checkpoints));
    const SaveRequest request{.space = space,
                              .tokens = talk.tokens,
                              .token_bytes = talk.token_bytes,
                              .text = talk.bytes(),
                              .role = EntryRole::kContinued,
                              .extent = extent,
                              .urgency = SaveUrgency::kOpportunistic,
                              .prefill_ms_per_token = 1.0,
                              .replaces = replaces};
    return store.save(request, state);
  }

  // Resumes `prompt` and says how many tokens came back; they and their state must be those of
  // `truth`, of which the prompt's text is a continuation or a part.  0: no hit.  -1: wrong.
  static std::int64_t resumed(Store& store,
                              const KeySpace& space,
                              const Conversation& prompt,
                              const Conversation& truth,
                              const LookupLimits& limits = {}) {
    CollectingSink sink(space.model().layout);
    const std::optional<Restored> restored = store.resume(space, prompt.bytes(), sink, limits);
    if (!restored) return 0;
    const std::size_t count = restored->tokens.size();
    if (count > truth.size() ||
        !std::equal(restored->tokens.begin(), restored->tokens.end(), truth.tokens.begin()))
      return -1;
    SyntheticState state(space.model().layout, truth.tokens, {count});
    if (!sink.equals(state, count, restored->has_logits)) return -1;
    if (restored->byte_count != truth.prefix(count).text.size()) return -1;
    return static_cast<std::int64_t>(count);
  }
  static std::int64_t resumed(Store& store, const KeySpace& space, const Conversation& talk) {
    return resumed(store, space, talk, talk);
  }

  bool logged(std::string_view part) const {
    for (const std::string& line : lines_)
      if (line.find(part) != std::string::npos) return true;
    return false;
  }

  static std::vector<std::filesystem::path> files_in(const std::filesystem::path& directory) {
    std::vector<std::filesystem::path> files;
    for (const auto& file : std::filesystem::directory_iterator(directory))
      files.push_back(file.path());
    return files;
  }

  std::filesystem::path directory_;
  std::vector<std::string> lines_;
  std::int64_t now_s_ = 1'800'000'000;
};

}  // namespace ds4::kvstore
