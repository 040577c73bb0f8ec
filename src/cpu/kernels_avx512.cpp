#include "cpu/decode_blocks_avx512.inc"
#include "cpu/simd_avx512.h"
//
#include "cpu/simd_pairs.inc"

namespace ds4::cpu {
namespace {

using FormatQ8 = DecodeQ8Avx512;
using FormatQ2K = DecodeQ2KAvx512;
using FormatQ4K = DecodeQ4KAvx512;
using FormatIq2 = DecodeIq2Avx512;
using FormatMxfp4 = DecodeMxfp4Avx512;

}  // namespace
}  // namespace ds4::cpu

#include "cpu/kernels_generic.inc"

namespace ds4::cpu {

const Kernels& avx512_kernels();

const Kernels& avx512_kernels() {
  static constexpr Kernels kKernels = make_kernels("avx512");
  return kKernels;
}

}  // namespace ds4::cpu
