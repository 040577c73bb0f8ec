#include "cpu/simd_avx2.h"
//
#include "cpu/kernels_generic.inc"

namespace ds4::cpu {

const Kernels& avx2_kernels();

const Kernels& avx2_kernels() {
  static constexpr Kernels kKernels = make_kernels("avx2");
  return kKernels;
}

}  // namespace ds4::cpu
