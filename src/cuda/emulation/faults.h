#pragma once
#include <cstdint>

namespace ds4::cuda::emulation {

// What goes wrong on the emulated card, for tests.  As on a card, a failed launch shows at a later
// call, and from then on every call fails.  Confined to one thread, as the emulation is.

// The `launches`-th launch from now fails, on any stream; 0 takes everything back.
void fail_after(std::uint64_t launches);

// Bytes of device memory that can still be allocated; UINT64_MAX, as at the start: no limit.
void limit_memory(std::uint64_t bytes);

}  // namespace ds4::cuda::emulation
