#include "common/fence.h"

#include <exception>
#include <new>

#include <fmt/format.h>

#include "common/output.h"
#include "common/terminal.h"

namespace ds4::app {

int complain(std::string_view program, std::string_view message, int exit_code) {
  write_note(
      paint(Terminal::standard_error(), Style::kError, fmt::format("{}: {}", program, message)) +
      "\n");
  return exit_code;
}

int run_fenced(std::string_view program, ErrorCode usage, const std::function<int()>& body) {
  try {
    return body();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kDevice) return complain(program, error.what(), kExitDeviceLost);
    return complain(program, error.what(), error.code() == usage ? kExitUsage : kExitFailure);
  } catch (const std::bad_alloc&) {
    return complain(program, "out of memory", kExitFailure);
  } catch (const std::exception& error) {
    return complain(program, fmt::format("internal error: {}", error.what()), kExitFailure);
  }
}

}  // namespace ds4::app
