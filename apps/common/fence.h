#pragma once
#include <functional>
#include <string_view>

#include "base/error.h"

namespace ds4::app {

// Exit codes that all programs share.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitDeviceLost = 3;  // a supervisor may start the program anew

// The outermost frame of a program: runs `body` and returns what it returns.  What it throws
// becomes one line "PROGRAM: message" on standard error, coloured where the terminal has colour,
// and an exit code: kExitUsage for errors of the kind `usage`, kExitDeviceLost for a device that
// failed, else kExitFailure.  Throws nothing.
int run_fenced(std::string_view program, ErrorCode usage, const std::function<int()>& body);

// That one line alone; returns `exit_code`.
int complain(std::string_view program, std::string_view message, int exit_code);

}  // namespace ds4::app
