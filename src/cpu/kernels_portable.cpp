#include "cpu/kernels_generic.h"

namespace ds4::cpu {

const Kernels& portable_kernels();

const Kernels& portable_kernels() {
  static constexpr Kernels kKernels{"portable", dot_generic, add_scaled_generic};
  return kKernels;
}

}  // namespace ds4::cpu
