#include "cpu/kernels_generic.h"

namespace ds4::cpu {

const Kernels& avx2_kernels();

const Kernels& avx2_kernels() {
  static constexpr Kernels kKernels{"avx2", dot_generic, add_scaled_generic};
  return kKernels;
}

}  // namespace ds4::cpu
