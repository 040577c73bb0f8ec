// For builds with a sanitizer, which has the allocator and tells of every allocation.
#include <atomic>
#include <cstddef>

#include <sanitizer/allocator_interface.h>

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

// Called by the sanitizer's runtime under these names.
extern "C" void __sanitizer_malloc_hook(const volatile void* memory, std::size_t bytes) {  // NOLINT
  static_cast<void>(memory);
  allocations.fetch_add(1, std::memory_order_relaxed);
  bytes_held.fetch_add(bytes, std::memory_order_relaxed);
}
extern "C" void __sanitizer_free_hook(const volatile void* memory) {  // NOLINT
  bytes_held.fetch_sub(__sanitizer_get_allocated_size(memory), std::memory_order_relaxed);
}
