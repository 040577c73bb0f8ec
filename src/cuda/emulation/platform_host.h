#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cuda/device.h"
#include "tensor/float16.h"

// The host emulation of cuda/platform.cuh: blocks run one after another, the threads of a block as
// fibers of one host thread that switch at barriers and warp collectives.  Exact in arithmetic but
// for the rounding of transcendental functions and matrix instructions' summation order; it shows
// wrong indices and wrong sums, not races.

#define DS4_KERNEL static
#define DS4_DEVICE inline
// Blocks run one at a time, so one copy serves as every block's.
#define DS4_SHARED static
#define DS4_BOUNDS(threads, blocks)

namespace ds4::cuda::emulation {

struct Index3 {
  std::uint32_t x = 0, y = 0, z = 0;
};

}  // namespace ds4::cuda::emulation

// CUDA's own names, set for the thread that runs.
// NOLINTNEXTLINE(readability-identifier-naming,*-avoid-non-const-global-variables): CUDA's
extern ds4::cuda::emulation::Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace ds4::cuda {

struct alignas(16) Words4 {
  std::uint32_t x, y, z, w;
};
struct alignas(8) Words2 {
  std::uint32_t x, y;
};
struct alignas(16) Float4 {
  float x, y, z, w;
};

struct LaunchShape {
  std::uint32_t grid_x = 1, grid_y = 1, grid_z = 1;
  std::uint32_t threads = 1;
  std::size_t shared_bytes = 0;
};

namespace emulation {

// Runs `body` once for every thread of the grid.
void run_grid(const LaunchShape& shape, void (*body)(const void* context), const void* context);
void block_barrier();
// All lanes of the warp hand in `bytes` (at most 32 of them) and get the 32 lanes' values, one
// every 32 bytes.
const std::byte* exchange(const void* value, std::size_t bytes);
std::byte* block_shared();
std::uint32_t lane();

template <class T>
T lane_value(const std::byte* all, std::uint32_t lane_index) {
  T value;
  std::memcpy(&value, all + std::size_t{lane_index} * 32, sizeof value);
  return value;
}

}  // namespace emulation

inline float half_to_float(std::uint16_t bits) {
  return f16_to_f32(bits);
}
inline std::uint16_t float_to_half(float value) {
  return f32_to_f16(value);
}
inline std::uint32_t pack_half2(float low, float high) {
  return f32_to_f16(low) | (static_cast<std::uint32_t>(f32_to_f16(high)) << 16);
}
inline float low_half(std::uint32_t pair) {
  return f16_to_f32(static_cast<std::uint16_t>(pair & 0xFFFF));
}
inline float high_half(std::uint32_t pair) {
  return f16_to_f32(static_cast<std::uint16_t>(pair >> 16));
}
inline std::uint32_t multiply_half2(std::uint32_t a, std::uint32_t b) {
  return pack_half2(low_half(a) * low_half(b), high_half(a) * high_half(b));
}
inline float float_of_bits(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}
inline std::uint32_t bits_of_float(float value) {
  return std::bit_cast<std::uint32_t>(value);
}
inline std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  const std::uint64_t both = a | (static_cast<std::uint64_t>(b) << 32);
  std::uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned nibble = (selector >> (4 * i)) & 15;
    std::uint32_t byte = static_cast<std::uint32_t>(both >> (8 * (nibble & 7))) & 255;
    if (nibble >= 8) byte = (byte & 128) != 0 ? 255 : 0;
    result |= byte << (8 * i);
  }
  return result;
}
inline std::uint32_t dot_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  for (unsigned i = 0; i < 32; i += 8)
    c += (a >> i & 255) * (b >> i & 255);
  return c;
}
inline std::uint32_t kept_constant(std::uint32_t value) {
  return value;
}
inline void sine_cosine(float angle, float* sine, float* cosine) {
  *sine = std::sin(angle);
  *cosine = std::cos(angle);
}

inline void block_sync() {
  emulation::block_barrier();
}
template <class T>
T shuffle_from(T value, int lane) {
  return emulation::lane_value<T>(emulation::exchange(&value, sizeof value),
                                  static_cast<std::uint32_t>(lane));
}
template <class T>
T shuffle_xor(T value, int mask) {
  return shuffle_from(value, static_cast<int>(emulation::lane()) ^ mask);
}
inline void warp_sync() {
  const int none = 0;
  emulation::exchange(&none, sizeof none);
}
inline std::uint32_t ballot(bool value) {
  const std::byte* all = emulation::exchange(&value, sizeof value);
  std::uint32_t bits = 0;
  for (std::uint32_t l = 0; l < 32; ++l)
    if (emulation::lane_value<bool>(all, l)) bits |= 1U << l;
  return bits;
}
inline int count_bits(std::uint32_t bits) {
  return std::popcount(bits);
}
inline std::uint32_t shared_add(std::uint32_t* counter, std::uint32_t value) {
  const std::uint32_t before = *counter;
  *counter += value;
  return before;
}
template <class T>
T load_streaming(const T* from) {
  return *from;
}

void multiply_tile(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
void multiply_bytes(std::int32_t (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
inline void set_to_bytes_product(std::int32_t (&d)[4],
                                 const std::uint32_t (&a)[4],
                                 const std::uint32_t (&b)[2]) {
  for (std::int32_t& value : d)
    value = 0;
  multiply_bytes(d, a, b);
}
void load_tiles(std::uint32_t (&r)[4], const void* shared_row);
void load_tiles_transposed(std::uint32_t (&r)[4], const void* shared_row);

inline void copy_async(void* shared, const void* global, bool valid) {
  if (valid) {
    std::memcpy(shared, global, 16);
  } else {
    std::memset(shared, 0, 16);
  }
}
inline void copy_async_commit() {}
template <int kPending>
void copy_async_wait() {}
inline void fetch_to_cache(const std::byte*, std::uint32_t) {}
inline void wait_for_inputs() {}
inline std::byte* dynamic_shared() {
  return emulation::block_shared();
}

template <class... Parameters, class... Arguments>
void launch(Stream& stream,
            const char* stage,
            const LaunchShape& shape,
            void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  const auto call = [&] { kernel(Parameters(arguments)...); };
  emulation::run_grid(
      shape, [](const void* context) { (*static_cast<const decltype(call)*>(context))(); }, &call);
  stream.after_launch(0, stage);
}

inline std::uint32_t add_half2(std::uint32_t a, std::uint32_t b) {
  return pack_half2(low_half(a) + low_half(b), high_half(a) + high_half(b));
}
inline std::uint32_t fma_half2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return pack_half2(low_half(a) * low_half(b) + low_half(c),
                    high_half(a) * high_half(b) + high_half(c));
}

inline void copy_async_8(void* shared, const void* global) {
  std::memcpy(shared, global, 8);
}
inline void copy_async_4(void* shared, const void* global) {
  std::memcpy(shared, global, 4);
}

// The emulation has no warpgroups; the names are there for kernels that are never built for it.
inline constexpr bool kWarpgroups = false;
inline bool has_warpgroups() {
  return false;
}
inline std::uint64_t describe_rows(const std::uint16_t*, std::uint32_t) {
  return 0;
}
inline void publish_shared() {}
inline void group_begin() {}
inline void group_commit() {}
inline void group_fence(float&) {}
template <int kPending>
void group_wait() {}
template <std::uint32_t kTiles>
void group_multiply(float (&)[kTiles][4], const std::uint32_t (&)[4], std::uint64_t) {}

struct alignas(8) Float2 {
  float x, y;
};

inline std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(shared));
}
inline std::uint64_t describe_columns(const std::uint16_t*, std::uint32_t, std::uint32_t) {
  return 0;
}
template <int kByColumns, std::uint32_t kTiles>
void group_multiply_shared(float (&)[kTiles][4], std::uint64_t, std::uint64_t) {}

}  // namespace ds4::cuda
