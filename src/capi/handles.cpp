#include "capi/handles.h"

#include <fmt/format.h>

namespace ds4::capi {

namespace {

// The one mutable thing that is nobody's: the C convention of a message per thread.
std::string& thread_message() {
  static thread_local std::string message;
  return message;
}

}  // namespace

ds4_status fail(ds4_status status, std::string_view message) noexcept {
  try {
    thread_message().assign(message);
  } catch (...) {
    thread_message().clear();  // no memory for the message; the status still says what happened
  }
  return status;
}

const char* last_error() noexcept {
  return thread_message().c_str();
}

ds4_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return DS4_INVALID_ARGUMENT;
    case ErrorCode::kNotFound:
      return DS4_NOT_FOUND;
    case ErrorCode::kBadFormat:
      return DS4_BAD_FORMAT;
    case ErrorCode::kUnsupported:
      return DS4_UNSUPPORTED;
    case ErrorCode::kContextOverflow:
      return DS4_CONTEXT_OVERFLOW;
    case ErrorCode::kOutOfMemory:
      return DS4_OUT_OF_MEMORY;
    case ErrorCode::kIo:
      return DS4_IO;
    case ErrorCode::kCancelled:
      return DS4_CANCELLED;
    case ErrorCode::kDevice:
      return DS4_DEVICE;
    case ErrorCode::kBusy:
      return DS4_BUSY;
    case ErrorCode::kInternal:
      return DS4_INTERNAL;
  }
  return DS4_INTERNAL;
}

void require(const void* pointer, std::string_view name) {
  if (pointer == nullptr)
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} must not be NULL", name));
}

}  // namespace ds4::capi
