#include "cpu/decode_blocks.h"
#include "cpu/simd_neon.inc"

namespace ds4::cpu {
namespace {

using FormatQ8 = DecodeQ8;
using FormatQ2K = DecodeQ2K;
using FormatQ4K = DecodeQ4K;
using FormatIq2 = DecodeIq2;
using FormatMxfp4 = DecodeMxfp4;

}  // namespace
}  // namespace ds4::cpu

#include "cpu/kernels_generic.inc"

namespace ds4::cpu {

const Kernels& neon_i8mm_kernels();

const Kernels& neon_i8mm_kernels() {
  static constexpr Kernels kKernels = make_kernels("neon_i8mm");
  return kKernels;
}

}  // namespace ds4::cpu
