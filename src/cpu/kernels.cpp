#include "cpu/kernels.h"

#include <vector>

#ifdef DS4_ARM_KERNELS
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace ds4::cpu {

#ifdef DS4_X86_KERNELS
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif
#ifdef DS4_ARM_KERNELS
const Kernels& neon_kernels();
const Kernels& neon_i8mm_kernels();
#endif

std::span<const Kernels* const> usable_kernels() {
  static const std::vector<const Kernels*> kUsable = [] {
    std::vector<const Kernels*> usable = {&portable_kernels()};
#ifdef DS4_X86_KERNELS
    // Every processor with AVX2 has F16C, whose name clang 14 does not know here.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      usable.push_back(&avx2_kernels());
    // What Ice Lake and Zen 4 brought; older AVX-512 processors take the 256-bit build.
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni"))
      usable.push_back(&avx512_kernels());
#endif
#ifdef DS4_ARM_KERNELS
    if ((::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) usable.push_back(&neon_kernels());
    if ((::getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0) usable.push_back(&neon_i8mm_kernels());
#endif
    return usable;
  }();
  return kUsable;
}

const Kernels& best_kernels() {
  return *usable_kernels().back();
}

}  // namespace ds4::cpu
