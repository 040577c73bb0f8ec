#pragma once
#include <cstdint>

namespace ds4::test {

// Allocations on any thread since the program started, so that a test can hold code to "allocates
// nothing": take the count before and after.  A test program that asks names
// ${DS4_ALLOCATION_COUNT} among its sources: a file that replaces the global operators or, where a
// sanitizer has done so already, listens to its allocator.
std::uint64_t allocation_count();

// Bytes of those that are not freed yet.
std::uint64_t bytes_allocated();

}  // namespace ds4::test
