#include "cpu/decode_blocks.h"
#include "cpu/simd_avx2.h"
//
#include "cpu/simd_pairs.inc"

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

const Kernels& avx2_kernels();

const Kernels& avx2_kernels() {
  static constexpr Kernels kKernels = make_kernels("avx2");
  return kKernels;
}

}  // namespace ds4::cpu
