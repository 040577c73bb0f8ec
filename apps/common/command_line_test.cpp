#include "common/command_line.h"

#include <CLI/CLI.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/fence.h"

namespace ds4::app {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

struct Ended {
  int code = 0;
  std::string out;
  std::string note;
};

// A program with one command, which ends as its option says.
Ended run(std::initializer_list<const char*> words) {
  CLI::App app("Does a thing.", "program");
  app.require_subcommand(1);
  CLI::App* command = app.add_subcommand("end", "Ends");
  int code = 0;
  command->add_option("--code", code, "The exit code");
  command->callback([&] {
    if (code != 0) throw CLI::RuntimeError(code);
  });
  std::vector<const char*> argv{"program"};
  argv.insert(argv.end(), words);
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Ended ended;
  ended.code = run_commands(app, static_cast<int>(argv.size()), argv.data());
  ended.out = testing::internal::GetCapturedStdout();
  ended.note = testing::internal::GetCapturedStderr();
  return ended;
}

TEST(CommandLine, ACommandEndsWithItsOwnCode) {
  EXPECT_EQ(run({"end"}).code, kExitDone);
  EXPECT_EQ(run({"end", "--code", "7"}).code, 7);
}

TEST(CommandLine, HelpIsOutputAndWrongUsageIsANote) {
  const Ended help = run({"--help"});
  EXPECT_EQ(help.code, kExitDone);
  EXPECT_THAT(help.out, HasSubstr("Does a thing."));
  EXPECT_THAT(help.note, IsEmpty());
  for (const char* word : {"", "--bogus"}) {
    const Ended wrong = *word == '\0' ? run({}) : run({word});
    EXPECT_EQ(wrong.code, kExitUsage);
    EXPECT_THAT(wrong.out, IsEmpty());
    EXPECT_THAT(wrong.note, HasSubstr("--help"));
  }
}

}  // namespace
}  // namespace ds4::app
