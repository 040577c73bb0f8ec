#include "cpu/simd_avx512.h"
//
#include "cpu/kernels_generic.inc"

namespace ds4::cpu {

const Kernels& avx512_kernels();

const Kernels& avx512_kernels() {
  static constexpr Kernels kKernels = make_kernels("avx512");
  return kKernels;
}

}  // namespace ds4::cpu
