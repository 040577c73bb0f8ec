// Decoding against blocks put together by hand from the formats' descriptions.
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "quant/codec.h"
#include "quant/iq2_xxs.h"
#include "quant/iq2_xxs_codebook.h"
#include "quant/mxfp4.h"
#include "quant/q2_k.h"
#include "quant/q4_k.h"
#include "quant/q8_0.h"

namespace ds4::quant {
namespace {

constexpr std::uint16_t kF16One = 0x3C00;
constexpr std::uint16_t kF16Half = 0x3800;
constexpr std::uint16_t kF16Two = 0x4000;

template <class F>
std::vector<float> decode(const typename F::Block& block) {
  std::vector<float> values(F::kValues);
  const auto* bytes = reinterpret_cast<const std::byte*>(&block);
  decode_row(F::kType, {bytes, sizeof block}, values);
  return values;
}

TEST(Decode, PlainTypesWidenExactly) {
  const std::array<std::uint16_t, 3> f16 = {0x3C00, 0xC000, 0x0001};
  std::array<float, 3> out{};
  decode_row(ElementType::kF16, std::as_bytes(std::span(f16)), out);
  EXPECT_EQ(out, (std::array<float, 3>{1.0F, -2.0F, 0x1p-24F}));
  const std::array<std::uint16_t, 3> bf16 = {0x3F80, 0xC040, 0x0000};
  decode_row(ElementType::kBF16, std::as_bytes(std::span(bf16)), out);
  EXPECT_EQ(out, (std::array<float, 3>{1.0F, -3.0F, 0.0F}));
  const std::array<std::int32_t, 3> i32 = {7, -1, 129279};
  decode_row(ElementType::kI32, std::as_bytes(std::span(i32)), out);
  EXPECT_EQ(out, (std::array<float, 3>{7.0F, -1.0F, 129279.0F}));
}

TEST(Decode, Q8_0IsScaleTimesSignedByte) {
  Q8_0::Block block{};
  block.d = kF16Half;
  block.q[0] = 127;
  block.q[31] = -128;
  const auto values = decode<Q8_0>(block);
  EXPECT_EQ(values[0], 63.5F);
  EXPECT_EQ(values[1], 0.0F);
  EXPECT_EQ(values[31], -64.0F);
}

TEST(Decode, Q2KFindsBitsScaleAndMinOfEachValue) {
  Q2K::Block block{};
  block.d = kF16Two;
  block.dmin = kF16Half;
  block.scales[0] = 0x35;     // values 0..15: scale 5, min 3
  block.scales[1] = 0x01;     // values 16..31: scale 1
  block.scales[15] = 0xF2;    // values 240..255: scale 2, min 15
  block.qs[0] = 0b00000011;   // value 0 has code 3; values 32, 64, 96 have 0
  block.qs[16] = 0b00000010;  // value 16 has code 2
  block.qs[63] = 0b01000000;  // value 128 + 96 + 31 = 255 has code 1
  const auto values = decode<Q2K>(block);
  EXPECT_EQ(values[0], 2.0F * 5 * 3 - 0.5F * 3);
  EXPECT_EQ(values[1], -0.5F * 3);
  EXPECT_EQ(values[16], 2.0F * 1 * 2);
  EXPECT_EQ(values[32], 0.0F);
  EXPECT_EQ(values[240], -0.5F * 15);
  EXPECT_EQ(values[255], 2.0F * 2 * 1 - 0.5F * 15);
}

TEST(Decode, Q4KUnpacksSixBitScales) {
  Q4K::Block block{};
  block.d = kF16One;
  block.dmin = kF16One;
  block.scales[0] = 0b10'000011;  // sub-block 0 scale 3; high bits of sub-block 4's scale: 2
  block.scales[4] = 0b01'000101;  // sub-block 0 min 5; high bits of sub-block 4's min: 1
  block.scales[8] = 0b1001'0110;  // sub-block 4: scale low 6, min low 9
  block.qs[0] = 0x7F;             // value 0 code 15 (low), value 32 code 7 (high, sub-block 1)
  block.qs[64] = 0x04;            // value 128 code 4: first of sub-block 4
  EXPECT_EQ(Q4K::scale_and_min(block, 4).scale, 2 * 16 + 6);
  EXPECT_EQ(Q4K::scale_and_min(block, 4).min, 1 * 16 + 9);
  const auto values = decode<Q4K>(block);
  EXPECT_EQ(values[0], 3.0F * 15 - 5);
  EXPECT_EQ(values[1], -5.0F);
  EXPECT_EQ(values[32], 0.0F);  // sub-block 1 has scale 0
  EXPECT_EQ(values[128], 38.0F * 4 - 25);
}

TEST(Decode, Iq2XxsTakesRowSignsAndScale) {
  IQ2XXS::Block block{};
  block.d = kF16Two;
  // Group 1: rows 1, 0, 0, 255; sign indices 0, 1, 0, 0; scale 3.
  block.qs[4] = 1;
  block.qs[5] = 0xFF00;
  const std::uint32_t aux = (3U << 28) | (1U << 7);
  block.qs[6] = aux & 0xFFFF;
  block.qs[7] = aux >> 16;
  const auto values = decode<IQ2XXS>(block);
  const float scale = 2.0F * (2 * 3 + 1) / 8;
  EXPECT_EQ(kIq2XxsCodes[1], 2);  // magnitude 0 is level 2, the others level 0
  EXPECT_EQ(values[32], scale * 43);
  EXPECT_EQ(values[33], scale * 8);
  EXPECT_EQ(values[40], -scale * 8);  // sign index 1: value 0 and, for parity, value 7
  EXPECT_EQ(values[41], scale * 8);
  EXPECT_EQ(values[47], -scale * 8);
  for (std::size_t i = 0; i < 8; ++i)
    EXPECT_EQ(values[56 + i], scale * static_cast<float>(kIq2XxsGrid[255][i]));
  EXPECT_EQ(values[0], 2.0F / 8 * 8);  // group 0: everything zero
}

TEST(Decode, Iq2XxsTablesAreSound) {
  for (std::size_t i = 0; i < kIq2XxsSigns.size(); ++i) {
    EXPECT_EQ(kIq2XxsSigns[i] & 127U, i);
    EXPECT_EQ(std::popcount(kIq2XxsSigns[i]) % 2, 0);
  }
  for (std::size_t i = 1; i < kIq2XxsCodes.size(); ++i)
    EXPECT_LT(kIq2XxsCodes[i - 1], kIq2XxsCodes[i]);
}

TEST(Decode, Mxfp4LowNibblesComeFirst) {
  MXFP4::Block block{};
  block.e = 128;        // times 2
  block.qs[0] = 0xF7;   // value 0: 6, value 16: -6
  block.qs[15] = 0x91;  // value 15: 0.5, value 31: -0.5
  const auto values = decode<MXFP4>(block);
  EXPECT_EQ(values[0], 12.0F);
  EXPECT_EQ(values[16], -12.0F);
  EXPECT_EQ(values[15], 1.0F);
  EXPECT_EQ(values[31], -1.0F);
  EXPECT_EQ(values[1], 0.0F);
  block.e = 0;
  EXPECT_EQ(decode<MXFP4>(block)[0], 6 * 0x1p-127F);
}

TEST(Decode, RowsOfSeveralBlocksStartAnywhere) {
  std::array<Q8_0::Block, 2> blocks{};
  blocks[0].d = kF16One;
  blocks[1].d = kF16Two;
  blocks[0].q.fill(1);
  blocks[1].q.fill(1);
  std::vector<std::byte> shifted(sizeof blocks + 1);
  std::memcpy(shifted.data() + 1, blocks.data(), sizeof blocks);
  std::vector<float> values(64);
  decode_row(ElementType::kQ8_0, std::span(shifted).subspan(1), values);
  EXPECT_EQ(values[31], 1.0F);
  EXPECT_EQ(values[32], 2.0F);
}

}  // namespace
}  // namespace ds4::quant
