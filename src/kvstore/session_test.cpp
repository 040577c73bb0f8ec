#include <fstream>

#include <sys/stat.h>

#include "base/error.h"
#include "kvstore/bundle.h"
#include "kvstore/session_store.h"
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

class SessionTest : public StoreTest {
 protected:
  static SessionSaved save_session(SessionStore& sessions,
                                   const KeySpace& space,
                                   const Conversation& talk,
                                   std::optional<std::string> id,
                                   std::string title = "a talk") {
    SyntheticState state(space.model().layout, talk.tokens, {256, 512, 768});
    return sessions.save({.id = std::move(id),
                          .title = std::move(title),
                          .space = space,
                          .tokens = talk.tokens,
                          .token_bytes = talk.token_bytes,
                          .text = talk.text},
                         state);
  }
  // True when the session's state is there and is that of `talk`.
  static bool restores(Store& store,
                       SessionStore& sessions,
                       const KeySpace& space,
                       const SessionInfo& info,
                       const Conversation& talk) {
    const std::optional<Hit> hit = sessions.hit(info, space);
    if (!hit) return false;
    CollectingSink sink(space.model().layout);
    SyntheticState state(space.model().layout, talk.tokens);
    return store.restore(space, *hit, sink).tokens == talk.tokens &&
           sink.equals(state, talk.size(), true);
  }
};

TEST_F(SessionTest, SavesListsFindsAndReads) {
  Store store(options());
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation first = Conversation().grow(300, 1);
  const Conversation second = Conversation().grow(50, 2);
  const SessionInfo a = save_session(sessions, space, first, std::nullopt, "first").info;
  now_s_ += 10;
  const SessionInfo b = save_session(sessions, space, second, std::nullopt, "second").info;
  const auto list = sessions.list();
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0].title, "second");
  EXPECT_EQ(list[1].title, "first");
  EXPECT_EQ(list[1].token_count, 300U);
  EXPECT_EQ(list[1].model, "synthetic");
  EXPECT_EQ(list[1].created_s, now_s_ - 10);
  EXPECT_EQ(sessions.find(a.id.substr(0, 12)).id, a.id);
  EXPECT_EQ(code_of([&] { sessions.find(""); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { sessions.find("zz"); }), ErrorCode::kNotFound);
  const SessionContent content = sessions.read(a.id);
  EXPECT_EQ(content.tokens, first.tokens);
  EXPECT_EQ(content.text, first.text);
  EXPECT_TRUE(restores(store, sessions, space, list[0], second));
  EXPECT_TRUE(restores(store, sessions, space, list[1], first));
  sessions.rename(b.id, "renamed");
  EXPECT_EQ(sessions.find(b.id).title, "renamed");
  EXPECT_EQ(code_of([&] { sessions.read("../../etc/passwd"); }), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(store.verify().problems.empty());
}

TEST_F(SessionTest, GrowsAndGoesBackWithoutWritingItAllAgain) {
  Store store(options());
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  Conversation talk = Conversation().grow(300, 1);
  const std::string id = save_session(sessions, space, talk, std::nullopt).info.id;
  const std::int64_t created = sessions.find(id).created_s;
  now_s_ += 100;
  for (int turn = 0; turn < 20; ++turn) {
    talk.grow(30, 1);
    save_session(sessions, space, talk, id);
  }
  EXPECT_EQ(sessions.read(id).tokens, talk.tokens);
  EXPECT_EQ(sessions.read(id).text, talk.text);
  EXPECT_EQ(sessions.find(id).created_s, created);
  EXPECT_EQ(files_in(directory_ / "tails").size(), 1U) << "each save replaces the tail before";
  const auto file_bytes = std::filesystem::file_size(directory_ / "sessions" / (id + ".session"));
  EXPECT_LT(file_bytes, 900U * 8 + 21 * 400);
  // Going back drops the end; going on differently replaces it.
  const Conversation edited = talk.prefix(310).grow(90, 9);
  save_session(sessions, space, edited, id);
  EXPECT_EQ(sessions.read(id).tokens, edited.tokens);
  EXPECT_EQ(sessions.read(id).text, edited.text);
  EXPECT_TRUE(restores(store, sessions, space, sessions.find(id), edited));
}

TEST_F(SessionTest, AFileOfMostlyWasteIsWrittenAnew) {
  Store store(options());
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const std::string id =
      save_session(sessions, space, Conversation().grow(10, 1), std::nullopt).info.id;
  for (std::uint32_t seed = 2; seed < 40; ++seed)
    save_session(sessions, space, Conversation().grow(2000, seed), id);
  EXPECT_EQ(sessions.read(id).tokens, Conversation().grow(2000, 39).tokens);
  EXPECT_LT(std::filesystem::file_size(directory_ / "sessions" / (id + ".session")), 120'000U);
}

TEST_F(SessionTest, StripKeepsTheTextAndDeleteLeavesNothing) {
  Store store(options());
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation common = Conversation().grow(512, 1);
  const Conversation first = Conversation(common).grow(300, 2);
  const Conversation second = Conversation(common).grow(300, 3);
  const SessionInfo a = save_session(sessions, space, first, std::nullopt).info;
  const SessionInfo b = save_session(sessions, space, second, std::nullopt).info;
  sessions.strip(a.id);
  EXPECT_FALSE(sessions.find(a.id).tail.has_value());
  EXPECT_FALSE(sessions.hit(sessions.find(a.id), space).has_value());
  EXPECT_EQ(sessions.read(a.id).tokens, first.tokens);
  EXPECT_TRUE(restores(store, sessions, space, b, second)) << "what is shared stays";
  EXPECT_EQ(store.stats().entries, 6U + 1);
  sessions.remove(b.id);
  EXPECT_EQ(store.stats().entries, 0U);
  EXPECT_EQ(code_of([&] { sessions.remove(b.id); }), ErrorCode::kNotFound);
  EXPECT_EQ(sessions.list().size(), 1U);
}

TEST_F(SessionTest, TwoSessionsMayResumeFromOneTail) {
  Store store(options());
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(300, 1);
  const SessionInfo a = save_session(sessions, space, talk, std::nullopt).info;
  const SessionInfo b = save_session(sessions, space, talk, std::nullopt).info;
  EXPECT_EQ(a.tail, b.tail);
  save_session(sessions, space, Conversation(talk).grow(9, 1), a.id);
  EXPECT_TRUE(restores(store, sessions, space, b, talk));
  sessions.remove(a.id);
  EXPECT_TRUE(restores(store, sessions, space, b, talk));
}

TEST_F(SessionTest, AStateThatDoesNotFitLeavesTheTextSaved) {
  StoreOptions store_options = options();
  store_options.bytes_max = 4000;
  Store store(store_options);
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(900, 1);
  const SessionSaved saved = save_session(sessions, space, talk, std::nullopt);
  EXPECT_EQ(saved.state.status, SaveStatus::kSkippedOverBudget);
  EXPECT_EQ(sessions.read(saved.info.id).tokens, talk.tokens);
  EXPECT_FALSE(sessions.find(saved.info.id).tail.has_value());
}

// A record cut short or damaged is as if it had never been begun; all before it stays.
TEST_F(SessionTest, ATornOrDamagedFileKeepsWhatIsSound) {
  Store store(options());
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation first = Conversation().grow(20, 1);
  const Conversation grown = Conversation(first).grow(20, 1);
  const std::string id = save_session(sessions, space, first, std::nullopt).info.id;
  const std::filesystem::path path = directory_ / "sessions" / (id + ".session");
  const auto first_bytes = std::filesystem::file_size(path);
  save_session(sessions, space, grown, id);
  std::ifstream in(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(in)), {});
  for (std::size_t at = 0; at < content.size(); ++at) {
    for (const bool cut : {true, false}) {
      std::string damaged = content;
      if (cut)
        damaged.resize(at);
      else
        damaged[at] = static_cast<char>(damaged[at] ^ 4);
      std::ofstream(path, std::ios::binary | std::ios::trunc) << damaged;
      if (at < first_bytes) {
        EXPECT_NE(code_of([&] { sessions.read(id); }), ErrorCode::kInternal) << at;
        continue;
      }
      EXPECT_EQ(sessions.read(id).tokens, first.tokens) << at;
    }
  }
  // A save after that brings everything back.
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content.substr(0, first_bytes + 30);
  EXPECT_EQ(store.verify().problems.size(), 1U);
  save_session(sessions, space, grown, id);
  EXPECT_EQ(sessions.read(id).tokens, grown.tokens);
  EXPECT_TRUE(store.verify().problems.empty());
  std::ofstream(path, std::ios::binary | std::ios::trunc) << "nothing like it";
  EXPECT_TRUE(sessions.list().empty());
  save_session(sessions, space, grown, id);
  EXPECT_EQ(sessions.read(id).tokens, grown.tokens);
}

TEST_F(SessionTest, FailureAtAnyStepKeepsTheSessionAsItWas) {
  const Conversation first = Conversation().grow(300, 1);
  const Conversation grown = Conversation(first).grow(300, 1);
  for (int failing_step = 0;; ++failing_step) {
    SCOPED_TRACE(failing_step);
    std::filesystem::remove_all(directory_);
    int step = 0;
    bool armed = false;
    StoreOptions store_options = options();
    store_options.step_hook = [&](WriteStep, const std::filesystem::path&) {
      if (armed && step++ == failing_step) throw Error(ErrorCode::kIo, "No space left on device");
    };
    Store store(store_options);
    SessionStore sessions(store);
    const KeySpace space = store.key_space(test_model(small_layout()));
    const std::string id = save_session(sessions, space, first, std::nullopt).info.id;
    armed = true;
    bool saved = false;
    try {
      save_session(sessions, space, grown, id);
      saved = true;
    } catch (const Error&) {
    }
    armed = false;
    const SessionInfo info = sessions.find(id);
    const Conversation& expected = info.token_count == grown.size() ? grown : first;
    EXPECT_TRUE(!saved || &expected == &grown);
    EXPECT_EQ(sessions.read(id).tokens, expected.tokens);
    EXPECT_TRUE(restores(store, sessions, space, info, expected));
    if (saved && step <= failing_step) break;
  }
}

TEST_F(SessionTest, ExportAndImportCarryTextAndState) {
  const std::filesystem::path file = directory_.string() + ".export";
  const std::filesystem::path key = directory_.string() + ".key";
  const std::filesystem::path other = directory_.string() + ".other";
  std::ofstream(key) << std::string(64, 'c');
  ::chmod(key.c_str(), 0600);
  const Conversation talk = Conversation().grow(600, 1);
  for (const bool from_encrypted : {false, true}) {
    for (const bool to_encrypted : {false, true}) {
      SCOPED_TRACE(testing::Message() << from_encrypted << " to " << to_encrypted);
      std::filesystem::remove_all(directory_);
      std::filesystem::remove_all(other);
      StoreOptions from = options();
      StoreOptions to = options();
      to.directory = other;
      if (from_encrypted) from.key_file = key;
      if (to_encrypted) to.key_file = key;
      Store source(from);
      SessionStore source_sessions(source);
      const KeySpace source_space = source.key_space(test_model(small_layout()), "alice");
      const std::string id =
          save_session(source_sessions, source_space, talk, std::nullopt, "mine").info.id;
      source_sessions.export_file(id, file);
      Store target(to);
      SessionStore sessions(target);
      const SessionInfo info = sessions.import_file(file, "bob");
      EXPECT_EQ(info.id, id);
      EXPECT_EQ(info.title, "mine");
      const KeySpace space = target.key_space(test_model(small_layout()), "bob");
      EXPECT_TRUE(restores(target, sessions, space, sessions.find(id), talk));
      EXPECT_EQ(resumed(target, space, talk), 600);
      EXPECT_NE(sessions.import_file(file, "bob").id, id) << "a second one gets its own id";
      EXPECT_TRUE(target.verify().problems.empty());
      // A stripped session travels as text.
      source_sessions.strip(id);
      source_sessions.export_file(id, file);
      EXPECT_FALSE(sessions.import_file(file).tail.has_value());
    }
  }
  std::filesystem::remove_all(other);
  std::filesystem::remove(file);
  std::filesystem::remove(key);
}

TEST_F(SessionTest, ADamagedExportIsRefused) {
  const std::filesystem::path file = directory_.string() + ".export";
  Store store(options());
  SessionStore sessions(store);
  const KeySpace space = store.key_space(test_model(small_layout()));
  const Conversation talk = Conversation().grow(130, 1);
  const std::string id = save_session(sessions, space, talk, std::nullopt).info.id;
  sessions.export_file(id, file);
  sessions.remove(id);
  std::ifstream in(file, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(in)), {});
  for (std::size_t at = 0; at < content.size(); at += 3) {
    std::string damaged = content;
    if (at % 2 == 0)
      damaged[at] = static_cast<char>(damaged[at] ^ 16);
    else
      damaged.resize(at);
    std::ofstream(file, std::ios::binary | std::ios::trunc) << damaged;
    ASSERT_NE(code_of([&] { sessions.import_file(file); }), ErrorCode::kInternal) << at;
    ASSERT_TRUE(sessions.list().empty());
  }
  std::ofstream(file, std::ios::binary | std::ios::trunc) << content;
  EXPECT_TRUE(restores(store, sessions, space, sessions.import_file(file), talk));
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace ds4::kvstore
