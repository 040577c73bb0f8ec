#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"
#include "ds4.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "sample/sampler.h"

// What the handles of include/ds4.h are, and the fence between exceptions and statuses.

struct ds4_engine {
  std::unique_ptr<ds4::Engine> engine;
  std::uint32_t context;    // of sessions that name none
  std::string fingerprint;  // hexadecimal
};

struct ds4_session {
  ds4_session(ds4_engine& owner, const ds4::SessionOptions& options, std::uint64_t seed)
      : session(*owner.engine, options),
        sampler(owner.engine->config().vocab_size, seed) {}
  ds4::Session session;
  ds4::sample::Sampler sampler;
};

namespace ds4::capi {

// Keeps the message for ds4_last_error() of this thread.
ds4_status fail(ds4_status status, std::string_view message) noexcept;
const char* last_error() noexcept;

ds4_status status_of(ErrorCode code);

// Runs `body`, which returns a status, and turns everything it throws into one.
template <class Body>
ds4_status fenced(const Body& body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    return fail(status_of(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    return fail(DS4_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(DS4_INTERNAL, error.what());
  } catch (...) {
    return fail(DS4_INTERNAL, "an exception of unknown type");
  }
}

// Throws Error(kInvalidArgument) naming what must not be NULL.
void require(const void* pointer, std::string_view name);

// An options struct of any release: the fields that the caller knows over the defaults of the rest.
// `given` may be null.  Throws Error(kInvalidArgument) for a size that no release had.
template <class Options>
Options read_options(const Options* given, Options defaults) {
  static_assert(std::is_trivially_copyable_v<Options>);
  if (given == nullptr) return defaults;
  if (given->size < sizeof(std::size_t) || given->size > std::size_t{1} << 16) {
    throw Error(ErrorCode::kInvalidArgument,
                "an options struct without its size: fill it with its _init function");
  }
  std::memcpy(&defaults, given, std::min(given->size, sizeof(Options)));
  defaults.size = sizeof(Options);
  return defaults;
}

// Stores `value` in a struct of any release, whose size the caller has set.
template <class Struct>
void write_struct(Struct* out, Struct value, std::string_view name) {
  require(out, name);
  if (out->size < sizeof(std::size_t)) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(name) + ": set its size field to its sizeof first");
  }
  value.size = out->size;
  std::memcpy(out, &value, std::min(out->size, sizeof(Struct)));
}

// Convention 7 of ds4.h.
template <class Element>
ds4_status write_buffer(const Element* elements,
                        std::size_t element_count,
                        Element* buffer,
                        std::size_t capacity,
                        std::size_t* count) {
  require(count, "the count to store");
  *count = element_count;
  if (element_count > capacity) return fail(DS4_BUFFER_TOO_SMALL, "the buffer is too small");
  if (element_count == 0) return DS4_OK;
  if (buffer == nullptr)
    throw Error(ErrorCode::kInvalidArgument, "a buffer with a capacity must not be NULL");
  std::memcpy(buffer, elements, element_count * sizeof(Element));
  return DS4_OK;
}

}  // namespace ds4::capi
