#include <csignal>
#include <fstream>

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/error.h"
#include "kvstore/test_store.h"

// Files that are not what was written, and places that do not take what is written.  Whatever
// happens, nothing wrong is loaded and nothing that was saved before is lost.
namespace ds4::kvstore {
namespace {

std::string read_all(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

void write_all(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

bool is_sound(const std::filesystem::path& path) {
  try {
    EntryReader(path, nullptr).check_all();
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Runs `body` in a process of its own; its exit status is the body's result.
template <class Body>
int in_child(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
    }
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

using DamageTest = StoreTest;

TEST_F(DamageTest, EveryFlippedByteAndEveryLengthIsSeen) {
  const Conversation talk = Conversation().grow(300, 1);
  {
    Store store(options());
    save(store, store.key_space(test_model(small_layout())), talk, {256});
  }
  for (const char* folder : {"chunks", "tails"}) {
    for (const auto& path : files_in(directory_ / folder)) {
      const std::string content = read_all(path);
      ASSERT_TRUE(is_sound(path));
      for (std::size_t at = 0; at < content.size(); ++at) {
        std::string flipped = content;
        flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
        write_all(path, flipped);
        ASSERT_FALSE(is_sound(path)) << path << " byte " << at;
      }
      for (std::size_t length = 0; length < content.size(); ++length) {
        write_all(path, content.substr(0, length));
        ASSERT_FALSE(is_sound(path)) << path << " length " << length;
      }
      write_all(path, content + '\0');
      ASSERT_FALSE(is_sound(path));
    }
  }
}

// The same through the store: a damaged tail falls back to the chunks, goes to quarantine, and the
// next save brings it back.
TEST_F(DamageTest, ADamagedTailIsNeverServedAndNeverFatal) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(261, 1);
  save(store, space, talk, {256});
  const auto tails = files_in(directory_ / "tails");
  ASSERT_EQ(tails.size(), 1U);
  const std::string content = read_all(tails[0]);
  for (std::size_t at = 0; at < content.size(); ++at) {
    std::string damaged = content;
    if (at % 2 == 0)
      damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    else
      damaged.resize(at);
    write_all(tails[0], damaged);
    ASSERT_EQ(resumed(store, space, talk), 256) << "byte " << at;
    ASSERT_FALSE(std::filesystem::exists(tails[0]));
    ASSERT_EQ(save(store, space, talk, {256}).chunks_reused, 2U);
    ASSERT_EQ(resumed(store, space, talk), 261);
  }
  EXPECT_LE(files_in(directory_ / "quarantine").size(), 17U);
}

TEST_F(DamageTest, ADamagedChunkTakesWhatHangsOnItAlongUntilItIsSavedAgain) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(900, 1);
  save(store, space, talk, {256, 512, 768});
  for (const EntryRow& row : store.entries()) {
    if (row.token_begin != 256 || row.kind != EntryKind::kChunk) continue;
    std::string content = read_all(store.path_of(row));
    content[content.size() / 2] ^= 1;
    write_all(store.path_of(row), content);
  }
  EXPECT_EQ(resumed(store, space, talk), 256);
  EXPECT_EQ(resumed(store, space, talk), 256);
  const SaveOutcome outcome = save(store, space, talk, {256, 512, 768});
  EXPECT_EQ(outcome.chunks_written, 1U);
  EXPECT_EQ(outcome.chunks_reused, 6U);
  EXPECT_EQ(resumed(store, space, talk), 900);
}

// A sound file under another entry's name has right checksums and wrong content.
TEST_F(DamageTest, AFileUnderAnotherNameIsNotServed) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation first = Conversation().grow(300, 1);
  const Conversation second = Conversation().grow(300, 2);
  const SaveOutcome a = save(store, space, first, {256});
  const SaveOutcome b = save(store, space, second, {256});
  const auto path = [&](const SaveOutcome& outcome) {
    return directory_ / "tails" / (outcome.tail->hex() + ".tail");
  };
  std::filesystem::copy_file(path(a), path(b), std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(resumed(store, space, second), 256);
  EXPECT_EQ(resumed(store, space, first), 300);
  std::filesystem::remove(path(a));
  EXPECT_EQ(resumed(store, space, first), 256) << "a file that is gone is a miss";
}

TEST_F(DamageTest, VerifyFindsWhatIsDamaged) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  save(store, space, Conversation().grow(300, 1), {256});
  const auto chunks = files_in(directory_ / "chunks");
  std::string content = read_all(chunks[0]);
  content.back() ^= 1;
  write_all(chunks[0], content);
  const VerifyReport report = store.verify();
  EXPECT_EQ(report.entries_checked, 3U);
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_NE(report.problems[0].find(chunks[0].string()), std::string::npos);
  EXPECT_TRUE(store.verify().problems.empty());
}

TEST_F(DamageTest, FailureAtAnyStepLosesNothingAndTheStoreGoesOn) {
  const Conversation first = Conversation().grow(300, 1);
  const Conversation grown = Conversation(first).grow(600, 1);
  for (int failing_step = 0;; ++failing_step) {
    SCOPED_TRACE(failing_step);
    std::filesystem::remove_all(directory_);
    int step = 0;
    bool armed = false;
    bool failed = false;
    StoreOptions store_options = options();
    store_options.step_hook = [&](WriteStep, const std::filesystem::path&) {
      if (!armed || step++ != failing_step) return;
      failed = true;
      throw Error(ErrorCode::kIo, "No space left on device");
    };
    Store store(store_options);
    const KeySpace space = store.key_space(test_model(small_layout()));
    const SaveOutcome before = save(store, space, first, {256});
    armed = true;
    bool saved = false;
    try {
      save(store, space, grown, {256, 512, 768}, before.tail);
      saved = true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
    }
    armed = false;
    const std::int64_t now = resumed(store, space, grown, grown);
    EXPECT_TRUE(!saved || now == 900);
    EXPECT_TRUE(now >= 300 || now == 256) << now;
    EXPECT_TRUE(now == 900 || resumed(store, space, first) == 300);
    EXPECT_TRUE(files_in(directory_ / "tmp").empty());
    save(store, space, grown, {256, 512, 768});
    EXPECT_EQ(resumed(store, space, grown), 900);
    store.collect();  // forgets a file that was removed right before the failure
    EXPECT_TRUE(store.verify().problems.empty());
    if (!failed) {
      EXPECT_GT(failing_step, 20) << "the scenario has fewer steps than it should";
      break;
    }
  }
}

// A limit on file sizes makes writes stop half-way, as a full disk does.
TEST_F(DamageTest, ADiskThatTakesNoMoreIsAnErrorAndLosesNothing) {
  const Conversation first = Conversation().grow(300, 1);
  const Conversation grown = Conversation(first).grow(6000, 1);
  {
    Store store(options());
    save(store, store.key_space(test_model(small_layout())), first, {256});
  }
  const int status = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      save(store, space, grown, {6300});
    } catch (const Error& error) {
      return error.code() == ErrorCode::kIo ? 0 : 1;
    }
    return 2;
  });
  EXPECT_EQ(status, 0);
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  EXPECT_EQ(resumed(store, space, first), 300);
  save(store, space, grown, {6300});
  EXPECT_EQ(resumed(store, space, grown), 6300);
}

TEST_F(DamageTest, AFullFileSystemIsAnErrorAndLosesNothing) {
  std::filesystem::create_directories(directory_);
  const int status = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("kv", directory_.c_str(), "tmpfs", 0, "size=512k,mode=0700") != 0)
      return 77;
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    const Conversation first = Conversation().grow(300, 1);
    save(store, space, first, {256});
    bool full = false;
    for (std::uint32_t seed = 2; seed < 100 && !full; ++seed) {
      try {
        save(store, space, Conversation().grow(2000, seed));
      } catch (const Error& error) {
        full = error.code() == ErrorCode::kIo;
        if (!full) return 1;
      }
    }
    if (!full) return 2;
    if (resumed(store, space, first) != 300) return 3;
    if (!store.verify().problems.empty()) return 4;
    return 0;
  });
  if (status == 77) GTEST_SKIP() << "no file system can be mounted here";
  EXPECT_EQ(status, 0);
}

TEST_F(DamageTest, AReadOnlyDirectoryServesHitsAndRefusesSaves) {
  const Conversation talk = Conversation().grow(300, 1);
  {
    Store store(options());
    save(store, store.key_space(test_model(small_layout())), talk, {256});
  }
  for (const auto& file : std::filesystem::recursive_directory_iterator(directory_))
    ::chmod(file.path().c_str(), file.is_directory() ? 0555 : 0444);
  ::chmod(directory_.c_str(), 0555);
  const int status = in_child([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 77;
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    if (!logged("read-only")) return 1;
    if (resumed(store, space, talk) != 300) return 2;
    if (!store.verify().problems.empty()) return 3;
    try {
      save(store, space, talk);
    } catch (const Error& error) {
      return error.code() == ErrorCode::kIo ? 0 : 4;
    }
    return 5;
  });
  for (const auto& file : std::filesystem::directory_iterator(directory_))
    if (file.is_directory()) ::chmod(file.path().c_str(), 0755);
  ::chmod(directory_.c_str(), 0755);
  EXPECT_EQ(status, 0);
}

TEST_F(DamageTest, AClockThatGoesBackLosesNothing) {
  StoreOptions store_options = options();
  Store store(store_options);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation first = Conversation().grow(300, 1);
  const Conversation second = Conversation().grow(300, 2);
  save(store, space, first, {256});
  now_s_ -= 20LL * 365 * 86400;
  EXPECT_EQ(resumed(store, space, first), 300);
  save(store, space, second, {256});
  EXPECT_EQ(resumed(store, space, second), 300);
  now_s_ = -5;  // before 1970
  EXPECT_EQ(resumed(store, space, second), 300);
  store.collect();
  EXPECT_EQ(resumed(store, space, first), 300);
  for (const EntryRow& row : store.entries())
    EXPECT_GE(row.hits, 1.0);
}

}  // namespace
}  // namespace ds4::kvstore
