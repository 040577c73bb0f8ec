// What the program reads and writes besides the model: prefix turns, kept chats, dumps.
#include <fstream>
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "dumps.h"
#include "prefix_turns.h"
#include "saved_chat.h"

namespace ds4::app {
namespace {

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(PrefixTurns, ReadsTurnsOfSeveralLines) {
  const auto turns = parse_prefix_turns(
      "\nUSER: one\nmore\n\nASSISTANT:two\nUSER:\nthree\nASSISTANT: four: USER: no marker\n", "f");
  ASSERT_EQ(turns.size(), 2U);
  EXPECT_EQ(turns[0], (PrefixTurn{"one\nmore", "two"}));
  EXPECT_EQ(turns[1], (PrefixTurn{"three", "four: USER: no marker"}));
}

TEST(PrefixTurns, SaysWhereTheOrderBreaks) {
  const auto message = [](std::string_view text) {
    return message_of([&] { parse_prefix_turns(text, "f"); });
  };
  EXPECT_NE(message("USER: a\nUSER: b\n").find("line 2"), std::string::npos);
  EXPECT_NE(message("ASSISTANT: a\n").find("line 1"), std::string::npos);
  EXPECT_NE(message("hello\nUSER: a\nASSISTANT: b").find("line 1"), std::string::npos);
  EXPECT_NE(message("USER: a\n"), "");
  EXPECT_NE(message(""), "");
}

class SavedChatTest : public testing::Test {
 protected:
  SavedChatTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("ds4-saved-chat-test-" + std::to_string(::getpid()))) {}
  ~SavedChatTest() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(SavedChatTest, ComesBackAsItWas) {
  const SavedChats chats(folder_ / "deep" / "chats");
  EXPECT_TRUE(chats.list().empty());
  const auto path = chats.path_for_writing("a.b-c_1");
  const SavedChat chat{.model = "m",
                       .system = "s \"\n\xff",  // a byte that is no text is replaced
                       .think = chat::ThinkMode::kMax,
                       .turn_count = 3,
                       .head = {TokenId{0}, TokenId{7}},
                       .body = {TokenId{129279}},
                       .state = {std::byte{1}, std::byte{2}}};
  write_saved_chat(path, chat);
  const SavedChat back = read_saved_chat(path);
  EXPECT_EQ(back.model, chat.model);
  EXPECT_EQ(back.system, "s \"\n\xef\xbf\xbd");
  EXPECT_EQ(back.think, chat.think);
  EXPECT_EQ(back.turn_count, chat.turn_count);
  EXPECT_EQ(back.head, chat.head);
  EXPECT_EQ(back.body, chat.body);
  EXPECT_EQ(back.state, chat.state);
  ASSERT_EQ(chats.list().size(), 1U);
  EXPECT_EQ(chats.list()[0].name, "a.b-c_1");
}

TEST_F(SavedChatTest, EveryTruncationAndEveryChangedByteOfTheHeaderIsRefused) {
  const SavedChats chats(folder_);
  const auto path = chats.path_for_writing("x");
  write_saved_chat(path, {.model = "m",
                          .system = {},
                          .think = {},
                          .turn_count = 1,
                          .head = {},
                          .body = {TokenId{5}},
                          .state = {}});
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    std::ofstream(path, std::ios::binary) << damaged;
    EXPECT_NE(message_of([&] { read_saved_chat(path); }), "") << i;
    std::ofstream(path, std::ios::binary) << whole.substr(0, i);
    EXPECT_NE(message_of([&] { read_saved_chat(path); }), "") << i;
  }
}

TEST_F(SavedChatTest, NamesCannotLeaveTheFolder) {
  const SavedChats chats(folder_);
  for (const char* name : {"", "..", ".hidden", "a/b", "/etc/passwd", "a b", "a\nb"})
    EXPECT_NE(message_of([&] { static_cast<void>(chats.path_of(name)); }), "") << name;
}

TEST(Dumps, TokenTextIsJsonWhateverTheBytes) {
  EXPECT_EQ(json_token_text("a\"\\\n\x01"), R"("a\"\\\n\u0001")");
  EXPECT_EQ(json_token_text("\xc3\xa9"), "\"\xc3\xa9\"");
  EXPECT_EQ(json_token_text("a\xc3"), R"("a\u00c3")");
}

}  // namespace
}  // namespace ds4::app
