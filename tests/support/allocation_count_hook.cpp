// For builds with a sanitizer, which has the allocator and tells of every allocation.
#include <atomic>
#include <cstddef>

#include "tests/support/allocation_count.h"

namespace {
std::atomic<std::uint64_t> allocations{0};  // NOLINT(*-avoid-non-const-global-variables)
std::atomic<std::uint64_t> bytes_held{0};   // NOLINT(*-avoid-non-const-global-variables)
}  // namespace

namespace ds4::test {
std::uint64_t allocation_count() {
  return allocations.load(std::memory_order_relaxed);
}
std::uint64_t bytes_allocated() {
  return bytes_held.load(std::memory_order_relaxed);
}
}  // namespace ds4::test

// The sanitizer's runtime calls the hooks under these names and knows an allocation's size; not
// every compiler brings the header that declares them.
extern "C" void __sanitizer_malloc_hook(const volatile void*, std::size_t);          // NOLINT
extern "C" void __sanitizer_free_hook(const volatile void*);                         // NOLINT
extern "C" std::size_t __sanitizer_get_allocated_size(const volatile void* memory);  // NOLINT

extern "C" void __sanitizer_malloc_hook(const volatile void*, std::size_t bytes) {  // NOLINT
  allocations.fetch_add(1, std::memory_order_relaxed);
  bytes_held.fetch_add(bytes, std::memory_order_relaxed);
}
extern "C" void __sanitizer_free_hook(const volatile void* memory) {  // NOLINT
  bytes_held.fetch_sub(__sanitizer_get_allocated_size(memory), std::memory_order_relaxed);
}
