#pragma once
#include "cuda/platform_device.cuh"

namespace ds4::cuda {

// Matrix instructions of a warpgroup: four neighbouring warps multiply 64 rows that they hold in
// registers by rows that lie in shared memory, in the background.  Cards of compute capability 9.0
// alone have them.

// A matrix of f16 in shared memory, rows of 64 numbers (128 bytes), 16-byte pieces of row r at
// piece ^ (r % 8), the whole aligned to 1024 bytes; from column 16 * `step` on.
DS4_DEVICE std::uint64_t describe_rows(const std::uint16_t* rows, std::uint32_t step) {
  const auto address = static_cast<std::uint64_t>(__cvta_generic_to_shared(rows)) + step * 32;
  constexpr std::uint64_t kEightRows = 1024 / 16;
  constexpr std::uint64_t kSwizzle128 = 1;
  return ((address & 0x3FFFF) >> 4) | (std::uint64_t{1} << 16) | (kEightRows << 32) |
         (kSwizzle128 << 62);
}

// The transpose of such matrices, the b of 16 of their rows from 16 * `step` on: neighbouring
// blocks of 64 columns lie `stride` bytes apart.
DS4_DEVICE std::uint64_t describe_columns(const std::uint16_t* rows,
                                          std::uint32_t step,
                                          std::uint32_t stride) {
  const auto address = static_cast<std::uint64_t>(__cvta_generic_to_shared(rows)) + step * 2048;
  constexpr std::uint64_t kEightRows = 1024 / 16;
  constexpr std::uint64_t kSwizzle128 = 1;
  return ((address & 0x3FFFF) >> 4) | (std::uint64_t{stride / 16} << 16) | (kEightRows << 32) |
         (kSwizzle128 << 62);
}

// Where the code is built for a card without these instructions its kernels stop: nobody launches
// them there (has_warpgroups()).
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DS4_GROUP_ASM(...) asm volatile(__VA_ARGS__)
#else
#define DS4_GROUP_ASM(...) __trap()
#endif

// Shared memory that this thread wrote is seen by matrix instructions after the next barrier.
DS4_DEVICE void publish_shared() {
  DS4_GROUP_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}
// Before the first instruction after registers that it uses were written.
DS4_DEVICE void group_begin() {
  DS4_GROUP_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}
DS4_DEVICE void group_commit() {
  DS4_GROUP_ASM("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most `kPending` of the committed groups are still under way.
template <int kPending>
DS4_DEVICE void group_wait() {
  DS4_GROUP_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#undef DS4_GROUP_ASM

// Keeps the compiler from reading or writing `value` on the other side of this place.
DS4_DEVICE void group_fence(float& value) {
  asm volatile("" : "+f"(value)::"memory");
}

#define DS4_SUMS(tile) "+f"(tile[0]), "+f"(tile[1]), "+f"(tile[2]), "+f"(tile[3])

// The instructions by their width.
template <std::uint32_t kColumns>
struct GroupInstruction;
template <std::uint32_t kColumns>
struct GroupSharedInstruction;

template <>
struct GroupInstruction<32> {
  static DS4_DEVICE void run(float (&d)[4][4], const std::uint32_t (&a)[4], std::uint64_t b) {
    asm volatile(
        "{.reg .pred p; setp.eq.u32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
        "}, {%16, %17, %18, %19}, %20, p, 1, 1, 0;}"
        : DS4_SUMS(d[0]), DS4_SUMS(d[1]), DS4_SUMS(d[2]), DS4_SUMS(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
};

template <>
struct GroupInstruction<64> {
  static DS4_DEVICE void run(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b) {
    asm volatile(
        "{.reg .pred p; setp.eq.u32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
        "%30, %31"
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;}"
        : DS4_SUMS(d[0]), DS4_SUMS(d[1]), DS4_SUMS(d[2]), DS4_SUMS(d[3]), DS4_SUMS(d[4]),
          DS4_SUMS(d[5]), DS4_SUMS(d[6]), DS4_SUMS(d[7])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
};

template <>
struct GroupInstruction<96> {
  static DS4_DEVICE void run(float (&d)[12][4], const std::uint32_t (&a)[4], std::uint64_t b) {
    asm volatile(
        "{.reg .pred p; setp.eq.u32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n96k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
        "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
        "%44, %45, %46, %47"
        "}, {%48, %49, %50, %51}, %52, p, 1, 1, 0;}"
        : DS4_SUMS(d[0]), DS4_SUMS(d[1]), DS4_SUMS(d[2]), DS4_SUMS(d[3]), DS4_SUMS(d[4]),
          DS4_SUMS(d[5]), DS4_SUMS(d[6]), DS4_SUMS(d[7]), DS4_SUMS(d[8]), DS4_SUMS(d[9]),
          DS4_SUMS(d[10]), DS4_SUMS(d[11])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
};

template <>
struct GroupInstruction<128> {
  static DS4_DEVICE void run(float (&d)[16][4], const std::uint32_t (&a)[4], std::uint64_t b) {
    asm volatile(
        "{.reg .pred p; setp.eq.u32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
        "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
        "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, "
        "%58, %59, %60, %61, %62, %63"
        "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0;}"
        : DS4_SUMS(d[0]), DS4_SUMS(d[1]), DS4_SUMS(d[2]), DS4_SUMS(d[3]), DS4_SUMS(d[4]),
          DS4_SUMS(d[5]), DS4_SUMS(d[6]), DS4_SUMS(d[7]), DS4_SUMS(d[8]), DS4_SUMS(d[9]),
          DS4_SUMS(d[10]), DS4_SUMS(d[11]), DS4_SUMS(d[12]), DS4_SUMS(d[13]), DS4_SUMS(d[14]),
          DS4_SUMS(d[15])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
};

template <>
struct GroupSharedInstruction<32> {
  template <int kByColumns>
  static DS4_DEVICE void run(float (&d)[4][4], std::uint64_t a, std::uint64_t b) {
    asm volatile(
        "{.reg .pred p; setp.eq.u32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
        "}, %16, %17, p, 1, 1, 0, %18;}"
        : DS4_SUMS(d[0]), DS4_SUMS(d[1]), DS4_SUMS(d[2]), DS4_SUMS(d[3])
        : "l"(a), "l"(b), "n"(kByColumns));
  }
};

template <>
struct GroupSharedInstruction<256> {
  template <int kByColumns>
  static DS4_DEVICE void run(float (&d)[32][4], std::uint64_t a, std::uint64_t b) {
    asm volatile(
        "{.reg .pred p; setp.eq.u32 p, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
        "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
        "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, "
        "%58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, "
        "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, "
        "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "
        "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
        "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, "
        "%122, %123, %124, %125, %126, %127"
        "}, %128, %129, p, 1, 1, 0, %130;}"
        : DS4_SUMS(d[0]), DS4_SUMS(d[1]), DS4_SUMS(d[2]), DS4_SUMS(d[3]), DS4_SUMS(d[4]),
          DS4_SUMS(d[5]), DS4_SUMS(d[6]), DS4_SUMS(d[7]), DS4_SUMS(d[8]), DS4_SUMS(d[9]),
          DS4_SUMS(d[10]), DS4_SUMS(d[11]), DS4_SUMS(d[12]), DS4_SUMS(d[13]), DS4_SUMS(d[14]),
          DS4_SUMS(d[15]), DS4_SUMS(d[16]), DS4_SUMS(d[17]), DS4_SUMS(d[18]), DS4_SUMS(d[19]),
          DS4_SUMS(d[20]), DS4_SUMS(d[21]), DS4_SUMS(d[22]), DS4_SUMS(d[23]), DS4_SUMS(d[24]),
          DS4_SUMS(d[25]), DS4_SUMS(d[26]), DS4_SUMS(d[27]), DS4_SUMS(d[28]), DS4_SUMS(d[29]),
          DS4_SUMS(d[30]), DS4_SUMS(d[31])
        : "l"(a), "l"(b), "n"(kByColumns));
  }
};

#undef DS4_SUMS

// d += a * b: a [64, 16], every warp its 16 rows in the order of multiply_tile(); b 16 columns of
// as many rows as d has; d[n] are b's rows 8 * n .. 8 * n + 7 in the order of multiply_tile().
template <std::uint32_t kTiles>
DS4_DEVICE void group_multiply(float (&d)[kTiles][4],
                               const std::uint32_t (&a)[4],
                               std::uint64_t b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  GroupInstruction<8 * kTiles>::run(d, a, b);
#else
  __trap();
#endif
}

// The same with a in shared memory too, described by describe_rows().  With `kByColumns` b is
// described by describe_columns().
template <int kByColumns, std::uint32_t kTiles>
DS4_DEVICE void group_multiply_shared(float (&d)[kTiles][4], std::uint64_t a, std::uint64_t b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  GroupSharedInstruction<8 * kTiles>::template run<kByColumns>(d, a, b);
#else
  __trap();
#endif
}

}  // namespace ds4::cuda
