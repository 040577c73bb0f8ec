#pragma once
#include <cstddef>
#include <cstdint>

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda/device.h"

#define DS4_KERNEL __global__
#define DS4_DEVICE __device__ __forceinline__
#define DS4_SHARED __shared__
// At most this many registers, so that `blocks` of them fit a multiprocessor.
#define DS4_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)

namespace ds4::cuda {

// 16 and 8 bytes that move as one load or store.
struct alignas(16) Words4 {
  std::uint32_t x, y, z, w;
};
struct alignas(8) Words2 {
  std::uint32_t x, y;
};
struct alignas(16) Float4 {
  float x, y, z, w;
};

DS4_DEVICE float half_to_float(std::uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}
DS4_DEVICE std::uint16_t float_to_half(float value) {
  return __half_as_ushort(__float2half_rn(value));
}
// Two f16 in one register, `low` in the low half.
DS4_DEVICE std::uint32_t pack_half2(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
DS4_DEVICE std::uint32_t multiply_half2(std::uint32_t a, std::uint32_t b) {
  const __half2 product =
      __hmul2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&product);
}

DS4_DEVICE float float_of_bits(std::uint32_t bits) {
  return __uint_as_float(bits);
}
DS4_DEVICE std::uint32_t bits_of_float(float value) {
  return __float_as_uint(value);
}
// Bytes of {b, a} (a is the low word) picked by the nibbles of `selector`; the top bit of a nibble
// asks for the byte's own top bit all over it, which __byte_perm() would ignore.
DS4_DEVICE std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(a), "r"(b), "r"(selector));
  return bytes;
}

// Sum of the products of a's and b's unsigned bytes, plus c.  With one byte of b not zero it takes
// a byte out of a, multiplies and adds at once, where the units for bits are the busier ones.
DS4_DEVICE std::uint32_t dot_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return __dp4a(a, b, c);
}

// A constant that stays in a register, which the compiler would make anew for every use.
DS4_DEVICE std::uint32_t kept_constant(std::uint32_t value) {
  std::uint32_t kept;
  asm volatile("mov.u32 %0, %1;" : "=r"(kept) : "r"(value));
  return kept;
}

// Accurate at any angle: full range reduction, never the approximate instructions.
DS4_DEVICE void sine_cosine(float angle, float* sine, float* cosine) {
  sincosf(angle, sine, cosine);
}

DS4_DEVICE void block_sync() {
  __syncthreads();
}
DS4_DEVICE void warp_sync() {
  __syncwarp();
}
template <class T>
DS4_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFU, value, mask);
}
template <class T>
DS4_DEVICE T shuffle_from(T value, int lane) {
  return __shfl_sync(0xFFFFFFFFU, value, lane);
}
DS4_DEVICE std::uint32_t ballot(bool value) {
  return __ballot_sync(0xFFFFFFFFU, value);
}
DS4_DEVICE int count_bits(std::uint32_t bits) {
  return __popc(bits);
}
DS4_DEVICE std::uint32_t shared_add(std::uint32_t* counter, std::uint32_t value) {
  return atomicAdd(counter, value);
}

// Weights pass through once: they leave the first-level cache to the activations.
template <class T>
DS4_DEVICE T load_streaming(const T* from) {
  static_assert(sizeof(T) == 16 || sizeof(T) == 8);
  T value;
  if constexpr (sizeof(T) == 16) {
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(from));
  } else {
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
                 : "=r"(value.x), "=r"(value.y)
                 : "l"(from));
  }
  return value;
}

// d += a * b on the tensor cores: a f16 [16, 16], b f16 [16, 8], d f32 [16, 8], in the register
// order of mma.m16n8k16.
DS4_DEVICE void multiply_tile(float (&d)[4],
                              const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a * b on the tensor cores: a signed bytes [16, 32], b signed bytes [32, 8], d int32 [16, 8],
// in the register order of mma.m16n8k32.
DS4_DEVICE void multiply_bytes(std::int32_t (&d)[4],
                               const std::uint32_t (&a)[4],
                               const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d = a * b.
DS4_DEVICE void set_to_bytes_product(std::int32_t (&d)[4],
                                     const std::uint32_t (&a)[4],
                                     const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(0));
}

// Four 8 x 8 f16 matrices from shared memory; lane l gives the address of row l % 8 of matrix l
// / 8.
DS4_DEVICE void load_tiles(std::uint32_t (&r)[4], const void* shared_row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
DS4_DEVICE void load_tiles_transposed(std::uint32_t (&r)[4], const void* shared_row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// 16 bytes from global to shared memory in the background; zeros when not `valid`.
DS4_DEVICE void copy_async(void* shared, const void* global, bool valid) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
               "r"(bytes)
               : "memory");
}
DS4_DEVICE void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `kPending` of the committed groups are still under way.
template <int kPending>
DS4_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Asks for `bytes`, a multiple of 16, to be brought to the second-level cache.
DS4_DEVICE void fetch_to_cache(const std::byte* from, std::uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#else
  for (std::uint32_t at = 0; at < bytes; at += 128)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
#endif
}

// Before a kernel reads what an earlier one wrote: with programmatic launches a grid starts while
// the one before it runs.  Since a grid lets the next one start only after its own wait, whatever
// is older than the launch before is complete when a grid starts.
DS4_DEVICE void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

DS4_DEVICE std::byte* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char storage[];
  return reinterpret_cast<std::byte*>(storage);
}

// Puts a kernel on the stream.  Blocks are one-dimensional; `shared_bytes` may pass 48 KiB.
struct LaunchShape {
  std::uint32_t grid_x = 1, grid_y = 1, grid_z = 1;
  std::uint32_t threads = 1;
  std::size_t shared_bytes = 0;
};

template <class... Parameters, class... Arguments>
void launch(Stream& stream,
            const char* stage,
            const LaunchShape& shape,
            void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  // What a kernel has of its own counts too: 48 KiB need no leave.
  if (shape.shared_bytes > 8 * 1024) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          stage);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.grid_x, shape.grid_y, shape.grid_z);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream.get();
  config.attrs = &attribute;
  config.numAttrs = stream.programmatic() ? 1 : 0;
  stream.after_launch(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), stage);
}

// Pairs of f16: a + b, and a * b + c rounded once.
DS4_DEVICE std::uint32_t add_half2(std::uint32_t a, std::uint32_t b) {
  const __half2 sum =
      __hadd2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&sum);
}
DS4_DEVICE std::uint32_t fma_half2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  const __half2 sum =
      __hfma2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b),
              *reinterpret_cast<const __half2*>(&c));
  return *reinterpret_cast<const std::uint32_t*>(&sum);
}

// The same for 8 and for 4 bytes.
DS4_DEVICE void copy_async_8(void* shared, const void* global) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(address), "l"(global) : "memory");
}
DS4_DEVICE void copy_async_4(void* shared, const void* global) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(global) : "memory");
}

// Whether the card and this build have warpgroup_device.cuh.
#if defined(DS4_CUDA_WARPGROUPS)
inline constexpr bool kWarpgroups = true;
inline bool has_warpgroups() {
  static const bool has = [] {
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess &&
           major == 9;
  }();
  return has;
}
#else
inline constexpr bool kWarpgroups = false;
inline bool has_warpgroups() {
  return false;
}
#endif

struct alignas(8) Float2 {
  float x, y;
};

// Address of shared memory within it.
DS4_DEVICE std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

}  // namespace ds4::cuda
