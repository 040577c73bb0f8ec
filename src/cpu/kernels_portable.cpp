#include "cpu/decode_blocks.h"
#include "cpu/simd_portable.h"
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

const Kernels& portable_kernels() {
  static constexpr Kernels kKernels = make_kernels("portable");
  return kKernels;
}

}  // namespace ds4::cpu
