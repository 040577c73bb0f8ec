// What the program reads and writes besides the model: prefix turns, kept chats, dumps.
#include <filesystem>
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "dumps.h"
#include "kept_chats.h"
#include "prefix_turns.h"

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

TEST(KeptChats, NamesCannotLeaveTheFolder) {
  const auto folder = std::filesystem::temp_directory_path() /
                      ("ds4-kept-chats-test-" + std::to_string(::getpid()));
  KeptChats chats(folder, {});
  EXPECT_TRUE(chats.list().empty());
  EXPECT_FALSE(std::filesystem::exists(folder)) << "nothing was kept yet";
  for (const char* name : {"", "..", ".hidden", "a/b", "/etc/passwd", "a b", "a\nb"}) {
    EXPECT_NE(message_of([&] { chats.read(name); }).find("no name"), std::string::npos) << name;
    EXPECT_NE(message_of([&] { chats.remove(name); }).find("no name"), std::string::npos) << name;
  }
  EXPECT_NE(message_of([&] { chats.read("x"); }).find("no kept conversation 'x'"),
            std::string::npos);
  std::filesystem::remove_all(folder);
}

TEST(Dumps, TokenTextIsJsonWhateverTheBytes) {
  EXPECT_EQ(json_token_text("a\"\\\n\x01"), R"("a\"\\\n\u0001")");
  EXPECT_EQ(json_token_text("\xc3\xa9"), "\"\xc3\xa9\"");
  EXPECT_EQ(json_token_text("a\xc3"), R"("a\u00c3")");
}

}  // namespace
}  // namespace ds4::app
