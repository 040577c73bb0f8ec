#include <csignal>
#include <cstdio>
#include <functional>

#include <sys/wait.h>

#include "base/error.h"
#include "kvstore/test_store.h"

// Processes that die without a word, and processes that share a directory.
namespace ds4::kvstore {
namespace {

class CrashTest : public StoreTest {
 protected:
  using Body = std::function<void(Store&, const KeySpace&)>;

  // Runs `body` on a store in a process of its own, which kills itself at step `fatal_step` counted
  // from when the store is open.  True when the body came to its end.
  bool survives(int fatal_step, const StoreOptions& base, const Body& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        int step = 0;
        bool armed = false;
        StoreOptions store_options = base;
        store_options.log = {};
        store_options.step_hook = [&](WriteStep, const std::filesystem::path&) {
          if (armed && step++ == fatal_step) ::kill(::getpid(), SIGKILL);
        };
        Store store(store_options);
        armed = true;
        body(store, store.key_space(test_model(small_layout())));
      } catch (const std::exception& error) {
        std::fprintf(stderr, "child: %s\n", error.what());
        ::_exit(9);
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFEXITED(status);
  }
};

TEST_F(CrashTest, KilledAtAnyStepOfASave) {
  const Conversation first = Conversation().grow(300, 1);
  const Conversation grown = Conversation(first).grow(600, 1);
  int fatal_step = 0;
  for (;; ++fatal_step) {
    SCOPED_TRACE(fatal_step);
    std::filesystem::remove_all(directory_);
    std::optional<EntryId> tail;
    {
      Store store(options());
      tail = save(store, store.key_space(test_model(small_layout())), first, {256}).tail;
    }
    const bool complete = survives(fatal_step, options(), [&](Store& store, const KeySpace& space) {
      save(store, space, grown, {256, 512, 768}, tail);
    });
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    const std::int64_t now = resumed(store, space, grown, grown);
    EXPECT_TRUE(now == 256 || now == 300 || now == 512 || now == 768 || now == 900) << now;
    EXPECT_TRUE(now == 900 || resumed(store, space, first) == 300);
    EXPECT_TRUE(!complete || now == 900);
    EXPECT_TRUE(files_in(directory_ / "tmp").empty());
    EXPECT_TRUE(store.verify().problems.empty());
    // Every file is known, and no row lacks its file.
    EXPECT_EQ(store.stats().entries,
              files_in(directory_ / "chunks").size() + files_in(directory_ / "tails").size());
    save(store, space, grown, {256, 512, 768});
    EXPECT_EQ(resumed(store, space, grown), 900);
    if (complete) break;
  }
  EXPECT_GT(fatal_step, 20) << "the scenario has fewer steps than it should";
}

TEST_F(CrashTest, KilledAtAnyStepOfEvictionAndPurge) {
  const Conversation first = Conversation().grow(600, 1);
  const Conversation second = Conversation().grow(600, 2);
  StoreOptions tight = options();
  const std::vector<Body> bodies = {[&](Store& store, const KeySpace& space) {
                                      save(store, space, second, {256, 512});
                                    },
                                    [](Store& store, const KeySpace&) { store.purge(); },
                                    [](Store& store, const KeySpace&) { store.collect(); }};
  for (std::size_t which = 0; which < bodies.size(); ++which) {
    for (int fatal_step = 0;; ++fatal_step) {
      SCOPED_TRACE(testing::Message() << which << " step " << fatal_step);
      std::filesystem::remove_all(directory_);
      {
        Store store(options());
        save(store, store.key_space(test_model(small_layout())), first, {256, 512});
        tight.bytes_max = store.stats().bytes + 2000;
      }
      const bool complete = survives(fatal_step, tight, bodies[which]);
      Store store(options());
      const KeySpace space = store.key_space(test_model(small_layout()));
      EXPECT_GE(resumed(store, space, first), 0) << "something wrong was loaded";
      EXPECT_GE(resumed(store, space, second), 0) << "something wrong was loaded";
      EXPECT_TRUE(store.verify().problems.empty());
      save(store, space, first, {256, 512});
      EXPECT_EQ(resumed(store, space, first), 600);
      if (complete) break;
    }
  }
}

// What a killed process cannot show: everything is synced before it gets its name, and named for
// good before the catalogue knows it.
TEST_F(CrashTest, FilesAreSyncedBeforeTheyAreNamedAndEntered) {
  std::vector<WriteStep> steps;
  StoreOptions store_options = options();
  store_options.step_hook = [&](WriteStep step, const std::filesystem::path&) {
    if (steps.empty() || steps.back() != step) steps.push_back(step);
  };
  Store store(store_options);
  steps.clear();
  save(store, store.key_space(test_model(small_layout())), Conversation().grow(100, 1));
  EXPECT_EQ(steps,
            (std::vector{WriteStep::kCreate, WriteStep::kWrite, WriteStep::kSync,
                         WriteStep::kRename, WriteStep::kSyncDirectory, WriteStep::kCatalogue}));
}

TEST_F(CrashTest, WhatADeadProcessHeldIsFreeAgain) {
  { Store store(options()); }
  survives(1'000'000, options(), [&](Store& store, const KeySpace& space) {
    const Conversation talk = Conversation().grow(300, 1);
    save(store, space, talk, {256});
    const Lease lease = store.hold(*store.lookup(space, talk.bytes()));
    ::kill(::getpid(), SIGKILL);
  });
  StoreOptions tight = options();
  tight.bytes_max = 1;
  Store store(tight);
  store.collect();
  EXPECT_EQ(store.stats().entries, 0U);
}

TEST_F(CrashTest, ProcessesThatSaveTheSamePrefixShareItsFiles) {
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    const pid_t child = ::fork();
    if (child == 0) {
      int status = 0;
      try {
        StoreOptions store_options = options();
        store_options.log = {};
        Store store(store_options);
        const KeySpace space = store.key_space(test_model(small_layout()));
        for (std::uint32_t talk = 0; talk < 12; ++talk) {
          const Conversation same = Conversation().grow(600, talk);
          save(store, space, same, {256, 512});
          if (resumed(store, space, same) != 600) status = 1;
        }
      } catch (const std::exception& error) {
        std::fprintf(stderr, "child: %s\n", error.what());
        status = 2;
      }
      ::_exit(status);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  EXPECT_EQ(store.stats().entries, 12U * 5);
  EXPECT_TRUE(store.verify().problems.empty());
  for (std::uint32_t talk = 0; talk < 12; ++talk)
    EXPECT_EQ(resumed(store, space, Conversation().grow(600, talk)), 600);
}

// Savers, loaders and an evictor at once: a load may miss, it may not be wrong.
TEST_F(CrashTest, ProcessesThatEvictAndLoadDoNotHarmEachOther) {
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    const pid_t child = ::fork();
    if (child == 0) {
      int status = 0;
      try {
        StoreOptions store_options = options();
        store_options.log = {};
        store_options.bytes_max = 60'000;  // about five conversations
        Store store(store_options);
        const KeySpace space = store.key_space(test_model(small_layout()));
        for (std::uint32_t round = 0; round < 40; ++round) {
          const auto seed = static_cast<std::uint32_t>(round * 7 + process * 3) % 10;
          const Conversation talk = Conversation().grow(600, seed);
          if (resumed(store, space, talk) < 0) status = 1;
          save(store, space, talk, {256, 512});
        }
      } catch (const std::exception& error) {
        std::fprintf(stderr, "child: %s\n", error.what());
        status = 2;
      }
      ::_exit(status);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  Store store(options());
  EXPECT_TRUE(store.verify().problems.empty());
  EXPECT_TRUE(files_in(directory_ / "quarantine").empty());
  EXPECT_EQ(store.stats().entries,
            files_in(directory_ / "chunks").size() + files_in(directory_ / "tails").size());
}

}  // namespace
}  // namespace ds4::kvstore
