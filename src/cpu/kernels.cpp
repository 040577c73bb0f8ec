#include "cpu/kernels.h"

namespace ds4::cpu {

#ifdef DS4_X86_KERNELS

const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

const Kernels& best_kernels() {
  static const Kernels& kBest = []() -> const Kernels& {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      return avx512_kernels();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_kernels();
    return portable_kernels();
  }();
  return kBest;
}

#else

const Kernels& best_kernels() {
  return portable_kernels();
}

#endif

}  // namespace ds4::cpu
