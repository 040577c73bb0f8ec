#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace ds4 {

// What the outside can cause, by kind.  Each code maps to one C status (include/ds4.h) and one HTTP
// status (server); the message, not the code, tells the reader what to do.
enum class ErrorCode {
  kInvalidArgument,  // a flag, request field or call argument is wrong
  kNotFound,         // a file, session or named thing does not exist
  kBadFormat,        // bytes from outside are not what they claim to be
  kUnsupported,      // well-formed, but this engine has no support for it
  kContextOverflow,  // the prompt or its continuation does not fit the context
  kOutOfMemory,      // a planned or attempted allocation does not fit
  kIo,               // reading or writing failed; the disk is full
  kCancelled,        // a stop was requested
  kDevice,           // an accelerator failed; its context is lost
  kBusy,             // a limit was reached; the same call may succeed later
  kInternal,         // a defect of ours, reported instead of crashing
};

// Stable lower-case name, e.g. "bad_format": for logs, metrics and tests.
std::string_view error_code_name(ErrorCode code);

// Thrown for everything the outside can cause.  `what()` is one clear message: what was wrong, what
// was expected, what to do.  Immutable.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// Throws Error(kIo) for the current errno: "ACTION PATH: reason".
[[noreturn]] void throw_errno(std::string_view action, std::string_view path);

namespace internal {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}  // namespace internal

}  // namespace ds4

// For our own mistakes alone: never for anything that a file, client or device can bring about.
#define DS4_CHECK(condition) \
  ((condition) ? void(0) : ::ds4::internal::check_failed(#condition, __FILE__, __LINE__))

// The same inside hot loops; compiled out unless the build asks for it.
#ifdef DS4_DCHECK_ENABLED
#define DS4_DCHECK(condition) DS4_CHECK(condition)
#else
#define DS4_DCHECK(condition) ((void)sizeof(!(condition)))
#endif
