#include "cpu/simd_portable.h"
//
#include "cpu/kernels_generic.inc"

namespace ds4::cpu {

const Kernels& portable_kernels();

const Kernels& portable_kernels() {
  static constexpr Kernels kKernels = make_kernels("portable");
  return kKernels;
}

}  // namespace ds4::cpu
