#include "cpu/kernels_generic.h"

namespace ds4::cpu {

const Kernels& avx512_kernels();

const Kernels& avx512_kernels() {
  static constexpr Kernels kKernels{"avx512", dot_generic, add_scaled_generic};
  return kKernels;
}

}  // namespace ds4::cpu
