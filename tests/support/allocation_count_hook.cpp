// For builds with a sanitizer, which has the allocator and tells of every allocation.
#include <atomic>
#include <cstddef>

#include "tests/support/allocation_count.h"

namespace {
std::atomic<std::uint64_t> allocations{0};  // NOLINT(*-avoid-non-const-global-variables)
}  // namespace

namespace ds4::test {
std::uint64_t allocation_count() {
  return allocations.load(std::memory_order_relaxed);
}
}  // namespace ds4::test

// Called by the sanitizer's runtime under this name.
extern "C" void __sanitizer_malloc_hook(const volatile void*, std::size_t);   // NOLINT
extern "C" void __sanitizer_malloc_hook(const volatile void*, std::size_t) {  // NOLINT
  allocations.fetch_add(1, std::memory_order_relaxed);
}
