#include "common/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

namespace ds4::app {
namespace {

// A pseudo-terminal for as long as the test runs.
struct Pty {
  Pty() : master(::posix_openpt(O_RDWR | O_NOCTTY)) {
    ::grantpt(master);
    ::unlockpt(master);
    slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY);
  }
  ~Pty() {
    ::close(slave);
    ::close(master);
  }
  int master;
  int slave = -1;
};

TEST(Terminal, ColourNeedsATtyAndConsent) {
  const Pty pty;
  if (pty.slave < 0) GTEST_SKIP() << "no pseudo-terminals here";
  EXPECT_TRUE(Terminal::of(pty.slave, nullptr, "xterm").has_colour);
  EXPECT_TRUE(Terminal::of(pty.slave, "", "xterm").has_colour);
  EXPECT_FALSE(Terminal::of(pty.slave, "1", "xterm").has_colour);
  EXPECT_FALSE(Terminal::of(pty.slave, nullptr, "dumb").has_colour);
  EXPECT_TRUE(Terminal::of(pty.slave, "1", "dumb").is_tty);
  const int file = ::open("/dev/null", O_WRONLY);
  EXPECT_FALSE(Terminal::of(file, nullptr, "xterm").has_colour);
  ::close(file);
}

TEST(Terminal, PaintsOnlyWithColour) {
  EXPECT_EQ(paint({.is_tty = true, .has_colour = true}, Style::kReasoning, "x"),
            "\x1b[90mx\x1b[0m");
  EXPECT_EQ(paint({.is_tty = true, .has_colour = false}, Style::kReasoning, "x"), "x");
}

TEST(ProgressLine, ShowsDoneTotalAndPercent) {
  EXPECT_EQ(ProgressLine::text("prefill", 0, 8), "prefill [....................] 0/8 (0%)");
  EXPECT_EQ(ProgressLine::text("prefill", 2, 8), "prefill [#####...............] 2/8 (25%)");
  EXPECT_EQ(ProgressLine::text("prefill", 8, 8), "prefill [####################] 8/8 (100%)");
}

}  // namespace
}  // namespace ds4::app
