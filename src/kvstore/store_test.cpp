#include "kvstore/store.h"

#include <fstream>

#include <sys/stat.h>

#include "base/error.h"
#include "kvstore/test_store.h"

namespace ds4::kvstore {
namespace {

ErrorCode code_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInternal;
}

// The lengths at which windows and compressor periods end, and those at chunk boundaries.
TEST_F(StoreTest, RestoresExactlyWhatWasSavedAtEveryLength) {
  const std::size_t lengths[] = {1,   3,   4,   5,   127, 128, 129, 130, 255, 256,  257,  383,
                                 384, 385, 511, 512, 513, 640, 767, 768, 769, 1023, 1024, 1025};
  for (const std::size_t length : lengths) {
    SCOPED_TRACE(length);
    std::filesystem::remove_all(directory_);
    const Conversation talk = Conversation().grow(length, 1);
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    const SaveOutcome outcome = save(store, space, talk, {256, 512, 768, 1024});
    ASSERT_TRUE(outcome.tail.has_value());
    EXPECT_EQ(outcome.chunks_written, length / 128);
    EXPECT_EQ(resumed(store, space, talk), static_cast<std::int64_t>(length));
    // The same prompt with more after it resumes at the same place.
    const Conversation longer = Conversation(talk).grow(9, 2);
    EXPECT_EQ(resumed(store, space, longer, talk), static_cast<std::int64_t>(length));
  }
}

TEST_F(StoreTest, ResumesAtABoundaryStateWhenTheEndDiffers) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(900, 1);
  save(store, space, talk, {256, 512, 768});
  const Conversation other = talk.prefix(800).grow(100, 5);
  EXPECT_EQ(resumed(store, space, other, other), 768);
  const Conversation early = talk.prefix(700).grow(100, 5);
  EXPECT_EQ(resumed(store, space, early, early), 512);
  const Conversation nothing = talk.prefix(100).grow(100, 5);
  EXPECT_EQ(resumed(store, space, nothing, nothing), 0);
  EXPECT_EQ(resumed(store, space, other, other, {.tokens_max = 700}), 512);
  EXPECT_EQ(resumed(store, space, other, other, {.tokens_min = 769}), 0);
}

TEST_F(StoreTest, ABoundaryWithoutACheckpointIsNoResumePoint) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(900, 1);
  save(store, space, talk, {512});
  const Conversation other = talk.prefix(800).grow(100, 5);
  EXPECT_EQ(resumed(store, space, other, other), 512);
}

TEST_F(StoreTest, AWholePromptIsAHitOnlyWithLogits) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(512, 1);
  save(store, space, talk, {256, 512}, std::nullopt, SaveExtent::kChunks);
  EXPECT_EQ(resumed(store, space, talk), 256);
  EXPECT_EQ(resumed(store, space, talk, talk, {.whole_match = WholeMatch::kAny}), 512);
  save(store, space, talk);
  EXPECT_EQ(resumed(store, space, talk), 512);
}

TEST_F(StoreTest, TheSameBytesInOtherTokensStillHit) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(300, 1);
  save(store, space, talk, {256});
  // Only bytes reach the lookup: the ids that come back are those that were saved.
  const auto hit = store.lookup(space, talk.bytes());
  ASSERT_TRUE(hit.has_value());
  CollectingSink sink(space.model().layout);
  EXPECT_EQ(store.restore(space, *hit, sink).tokens, talk.tokens);
}

// Two tokenisations of the same bytes have different rows.  They must live side by side and a chain
// must never go over from one to the other.
TEST_F(StoreTest, TokenisationsOfTheSameBytesDoNotMix) {
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation first = Conversation().grow(700, 1);
  Conversation second = first;
  second.tokens[5] = TokenId(49999);  // the same bytes by another id
  second.tokens[600] = TokenId(49998);
  save(store, space, first, {256, 512});
  const SaveOutcome outcome = save(store, space, second, {256, 512});
  EXPECT_EQ(outcome.chunks_reused, 0U);
  CollectingSink sink(space.model().layout);
  for (const Conversation* talk : std::initializer_list<const Conversation*>{&first, &second}) {
    const SaveOutcome again = save(store, space, *talk, {256, 512});
    ASSERT_TRUE(again.tail.has_value());
    EXPECT_EQ(again.bytes_written, 0U);
    const auto hit = store.hit_of(*again.tail);
    ASSERT_TRUE(hit.has_value());
    EXPECT_EQ(store.restore(space, *hit, sink).tokens, talk->tokens);
    SyntheticState state(space.model().layout, talk->tokens);
    EXPECT_TRUE(sink.equals(state, talk->size(), true));
  }
}

TEST_F(StoreTest, KeySpacesNeverMeet) {
  Store store(options());
  const Conversation talk = Conversation().grow(300, 1);
  const KeySpace space = store.key_space(test_model(small_layout()), "alice");
  save(store, space, talk);
  EXPECT_EQ(resumed(store, space, talk), 300);
  EXPECT_EQ(resumed(store, store.key_space(test_model(small_layout()), "bob"), talk), 0);
  EXPECT_EQ(resumed(store, store.key_space(test_model(small_layout())), talk), 0);
  ModelIdentity other = test_model(small_layout());
  other.fingerprint[31] ^= 1;
  EXPECT_EQ(resumed(store, store.key_space(other), talk), 0);
  StateLayout layout = small_layout();
  layout.version = 2;
  EXPECT_EQ(resumed(store, store.key_space(test_model(layout), "alice"), talk), 0);
  EXPECT_EQ(code_of([&] { store.key_space(test_model(small_layout()), "../x"); }),
            ErrorCode::kInvalidArgument);
}

// A conversation that grows is never written again: the sum of all writes stays within 1.1 of what
// is there in the end, tails apart.
TEST_F(StoreTest, AGrowingConversationWritesOnlyWhatIsNew) {
  StoreOptions store_options = options();
  store_options.chunk_tokens = 1024;
  store_options.state_stride_chunks = 8;
  Store store(store_options);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation whole = Conversation().grow(50'000, 1);
  std::set<std::uint64_t> checkpoints;
  for (std::uint64_t at = 8192; at < whole.size(); at += 8192)
    checkpoints.insert(at);
  std::uint64_t written = 0;
  std::uint64_t tails_written = 0;
  std::optional<EntryId> tail;
  for (std::size_t length = 500; length <= whole.size(); length += 500) {
    const SaveOutcome outcome = save(store, space, whole.prefix(length), checkpoints, tail);
    ASSERT_EQ(outcome.status, SaveStatus::kSaved);
    written += outcome.bytes_written;
    tail = outcome.tail;
    for (const EntryRow& row : store.entries())
      if (row.id == *tail) tails_written += row.file_bytes;
  }
  EXPECT_EQ(resumed(store, space, whole), 50'000);
  std::uint64_t tails = 0;
  for (const EntryRow& row : store.entries())
    tails += row.kind == EntryKind::kTail ? 1 : 0;
  EXPECT_EQ(tails, 1U) << "each tail replaces the one before";
  EXPECT_EQ(store.stats().bytes_written_today, written);
  const double final_bytes = static_cast<double>(store.stats().bytes);
  EXPECT_LE(static_cast<double>(written - tails_written), 1.1 * final_bytes);
}

TEST_F(StoreTest, SessionsShareTheirCommonPrefix) {
  StoreOptions store_options = options();
  store_options.chunk_tokens = 1024;
  Store store(store_options);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation common = Conversation().grow(20'000, 1);
  save(store, space, common, {}, std::nullopt, SaveExtent::kChunks);
  const std::uint64_t alone = store.stats().bytes;
  const std::uint64_t entries = store.stats().entries;
  EXPECT_EQ(entries, 19U);
  for (std::uint32_t session = 0; session < 10; ++session) {
    const Conversation talk = Conversation(common).grow(100, 100 + session);
    EXPECT_EQ(save(store, space, talk).chunks_reused, 19U);
  }
  EXPECT_EQ(store.stats().entries, entries + 10);
  std::uint64_t chunk_bytes = 0;
  for (const EntryRow& row : store.entries())
    chunk_bytes += row.kind == EntryKind::kChunk ? row.file_bytes : 0;
  EXPECT_EQ(chunk_bytes, alone);
}

TEST_F(StoreTest, FilesAreForTheirOwnerAlone) {
  ::umask(0);
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  save(store, space, Conversation().grow(300, 1));
  for (const auto& file : std::filesystem::recursive_directory_iterator(directory_)) {
    struct stat info {};
    ASSERT_EQ(::stat(file.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 077, 0U) << file.path();
  }
  struct stat info {};
  ASSERT_EQ(::stat(directory_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
  ::umask(022);
}

TEST_F(StoreTest, EncryptedFilesHideTextAndNeedTheirKey) {
  const std::filesystem::path key = directory_.string() + ".key";
  const std::filesystem::path other_key = directory_.string() + ".other";
  for (const auto& [path, digit] : {std::pair(key, 'a'), std::pair(other_key, 'b')}) {
    std::ofstream(path) << std::string(64, digit) << '\n';
    ::chmod(path.c_str(), 0600);
  }
  StoreOptions store_options = options();
  store_options.key_file = key;
  const Conversation talk = Conversation().grow(600, 1);
  {
    Store store(store_options);
    const KeySpace space = store.key_space(test_model(small_layout()));
    save(store, space, talk, {256, 512});
    EXPECT_EQ(resumed(store, space, talk), 600);
    EXPECT_TRUE(store.verify().problems.empty());
  }
  for (const auto& file : std::filesystem::recursive_directory_iterator(directory_)) {
    if (!file.is_regular_file()) continue;
    std::ifstream in(file.path(), std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(content.find(talk.text.substr(40, 16)), std::string::npos) << file.path();
  }
  EXPECT_EQ(code_of([&] { Store store(options()); }), ErrorCode::kInvalidArgument);
  store_options.key_file = other_key;
  EXPECT_EQ(code_of([&] { Store store(store_options); }), ErrorCode::kInvalidArgument);
  // Tools may list and check without the key, not save.
  StoreOptions tool = options();
  tool.key_policy = KeyPolicy::kMayBeAbsent;
  {
    Store store(tool);
    EXPECT_EQ(store.stats().entries, 5U);
    EXPECT_TRUE(store.verify().problems.empty());
    const KeySpace space = store.key_space(test_model(small_layout()));
    EXPECT_EQ(code_of([&] { save(store, space, talk); }), ErrorCode::kInvalidArgument);
  }
  std::filesystem::remove(key);
  std::filesystem::remove(other_key);
}

TEST_F(StoreTest, AKeyFileMustBePrivateAndWhole) {
  const std::filesystem::path key = directory_.string() + ".key";
  StoreOptions store_options = options();
  store_options.key_file = key;
  std::ofstream(key) << std::string(64, 'a');
  ::chmod(key.c_str(), 0644);
  EXPECT_EQ(code_of([&] { Store store(store_options); }), ErrorCode::kInvalidArgument);
  ::chmod(key.c_str(), 0600);
  EXPECT_NO_THROW(Store store(store_options));
  std::ofstream(key) << std::string(63, 'a');
  EXPECT_EQ(code_of([&] { Store store(store_options); }), ErrorCode::kInvalidArgument);
  std::filesystem::remove(key);
}

TEST_F(StoreTest, PurgeLeavesNothingOfWhatItWasAskedFor) {
  Store store(options());
  const Conversation talk = Conversation().grow(300, 1);
  const KeySpace alice = store.key_space(test_model(small_layout()), "alice");
  const KeySpace bob = store.key_space(test_model(small_layout()), "bob");
  save(store, alice, talk);
  save(store, bob, talk);
  EXPECT_EQ(store.purge("alice"), 3U);
  EXPECT_EQ(resumed(store, alice, talk), 0);
  EXPECT_EQ(resumed(store, bob, talk), 300);
  store.purge();
  EXPECT_EQ(store.stats().entries, 0U);
  EXPECT_TRUE(files_in(directory_ / "chunks").empty());
  EXPECT_TRUE(files_in(directory_ / "tails").empty());
}

TEST_F(StoreTest, TheCatalogueIsRebuiltFromTheFiles) {
  const Conversation talk = Conversation().grow(900, 1);
  {
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    save(store, space, talk, {256, 512, 768});
    EXPECT_EQ(store.rebuild(), 8U);
    EXPECT_EQ(resumed(store, space, talk), 900);
  }
  std::filesystem::remove(directory_ / "catalogue.sqlite");
  {
    Store store(options());
    const KeySpace space = store.key_space(test_model(small_layout()));
    EXPECT_EQ(store.stats().entries, 8U);
    EXPECT_EQ(resumed(store, space, talk), 900);
  }
  std::ofstream(directory_ / "catalogue.sqlite") << "this is no database, whatever its name says";
  Store store(options());
  const KeySpace space = store.key_space(test_model(small_layout()));
  EXPECT_EQ(resumed(store, space, talk), 900);
  EXPECT_TRUE(logged("rebuilt from the files"));
}

}  // namespace
}  // namespace ds4::kvstore
