#pragma once
#include <cstdint>

namespace ds4::test {

// Calls of operator new, in any form and on any thread, since the program started.  Linking
// allocation_count.cpp into a test program replaces the global operators, so that a test can hold
// code to "allocates nothing": take the count before and after.
std::uint64_t allocation_count();

}  // namespace ds4::test
