// Checkpoint rows to f32, against values worked out by hand.
#include "convert/rows.h"

#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "convert/test_checkpoint.h"
#include "tensor/float16.h"

namespace ds4::convert {
namespace {

using ::testing::HasSubstr;
using testing::RawTensor;

class RowsTest : public ::testing::Test {
 protected:
  const Checkpoint& checkpoint(const std::map<std::string, RawTensor>& tensors) {
    testing::write_file(directory_.path() / "model.safetensors",
                        testing::safetensors_bytes(tensors));
    checkpoint_ = std::make_unique<Checkpoint>(directory_.path());
    return *checkpoint_;
  }

  std::vector<float> read(const std::map<std::string, RawTensor>& tensors,
                          std::uint64_t rows,
                          std::uint64_t columns,
                          std::uint64_t row) {
    std::vector<float> values(columns);
    RowSource(checkpoint(tensors), "x.weight", rows, columns).read(row, values);
    return values;
  }

  std::string error_of(const std::map<std::string, RawTensor>& tensors,
                       std::uint64_t rows,
                       std::uint64_t columns) {
    try {
      for (std::uint64_t row = 0; row < rows; ++row)
        read(tensors, rows, columns, row);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  }

  testing::TestDirectory directory_{"rows"};
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(RowsTest, Fp8TakesTheScaleOfItsTile) {
  // 130 x 130: two tiles each way, the second ones two wide.
  constexpr std::uint64_t kSize = 130;
  RawTensor codes{"F8_E4M3", {kSize, kSize}, std::string(kSize * kSize, '\x38')};  // 1.0
  codes.bytes[129 * kSize + 5] = '\xC0';                                           // -2.0
  const RawTensor scales{"F8_E8M0", {2, 2}, {'\x7F', '\x80', '\x7E', '\x81'}};     // 1, 2, 0.5, 4
  const std::map<std::string, RawTensor> tensors = {{"x.weight", codes}, {"x.scale", scales}};
  const auto first = read(tensors, kSize, kSize, 127);
  EXPECT_EQ(first[0], 1.0F);
  EXPECT_EQ(first[127], 1.0F);
  EXPECT_EQ(first[128], 2.0F);
  const auto last = read(tensors, kSize, kSize, 129);
  EXPECT_EQ(last[5], -1.0F);
  EXPECT_EQ(last[127], 0.5F);
  EXPECT_EQ(last[129], 4.0F);
}

TEST_F(RowsTest, EveryFp8CodeIsRead) {
  RawTensor codes{"F8_E4M3", {1, 254}, {}};
  std::vector<float> expected;
  for (unsigned code = 0; code < 256; ++code) {
    if ((code & 0x7F) == 0x7F) continue;
    codes.bytes.push_back(static_cast<char>(code));
    expected.push_back(e4m3_to_f32(static_cast<std::uint8_t>(code)) * 0.25F);
  }
  EXPECT_EQ(read({{"x.weight", codes}, {"x.scale", {"F8_E8M0", {1, 2}, "\x7D\x7D"}}}, 1, 254, 0),
            expected);
}

TEST_F(RowsTest, Fp4LowNibbleIsTheEvenColumn) {
  RawTensor codes{"I8", {2, 32}, std::string(64, '\0')};
  codes.bytes[0] = '\x7A';        // row 0: column 0 is -1, column 1 is 6
  codes.bytes[32 + 16] = '\x28';  // row 1: column 32 is 0 (the code of -0), column 33 is 1
  const RawTensor scales{"F8_E8M0", {2, 2}, {'\x7F', '\x7F', '\x7F', '\x82'}};
  const std::map<std::string, RawTensor> tensors = {{"x.weight", codes}, {"x.scale", scales}};
  const auto first = read(tensors, 2, 64, 0);
  EXPECT_EQ(first[0], -1.0F);
  EXPECT_EQ(first[1], 6.0F);
  const auto second = read(tensors, 2, 64, 1);
  EXPECT_EQ(second[32], 0.0F);
  EXPECT_FALSE(std::signbit(second[32]));
  EXPECT_EQ(second[33], 8.0F);
}

TEST_F(RowsTest, RefusesCodesThatAreNoNumbers) {
  const RawTensor one_scale{"F8_E8M0", {1, 1}, "\x7F"};
  const RawTensor sound{"F8_E4M3", {1, 4}, std::string(4, '\x38')};
  EXPECT_EQ(error_of({{"x.weight", sound}, {"x.scale", one_scale}}, 1, 4), "");
  for (const char nan : {'\x7F', '\xFF'}) {
    RawTensor damaged = sound;
    damaged.bytes[2] = nan;
    EXPECT_THAT(error_of({{"x.weight", damaged}, {"x.scale", one_scale}}, 1, 4),
                HasSubstr("row 0, column 2"));
  }
  EXPECT_THAT(error_of({{"x.weight", sound}, {"x.scale", {"F8_E8M0", {1, 1}, "\xFF"}}}, 1, 4),
              HasSubstr("code 255"));
  const std::vector<float> infinite = {1, INFINITY};
  EXPECT_THAT(error_of({{"x.weight", testing::f32_tensor({2}, infinite)}}, 1, 2),
              HasSubstr("not a number"));
}

TEST_F(RowsTest, RefusesWrongShapesAndTypes) {
  const std::vector<float> values(6, 1.0F);
  const auto plain = testing::f32_tensor({2, 3}, values);
  EXPECT_THAT(error_of({{"x.weight", plain}}, 3, 2), HasSubstr("F32 [2, 3]"));
  EXPECT_THAT(error_of({{"y", plain}}, 2, 3), HasSubstr("'x.weight' is missing"));
  const RawTensor codes{"F8_E4M3", {2, 3}, std::string(6, '\x38')};
  EXPECT_THAT(error_of({{"x.weight", codes}}, 2, 3), HasSubstr("'x.scale' is missing"));
  EXPECT_THAT(error_of({{"x.weight", codes}, {"x.scale", {"F8_E8M0", {1, 2}, "\x7F\x7F"}}}, 2, 3),
              HasSubstr("x.scale"));
  EXPECT_THAT(error_of({{"x.weight", {"I32", {1, 1}, "abcd"}}}, 1, 1),
              HasSubstr("holds no weights"));
}

TEST_F(RowsTest, ExpertIdsAreBounded) {
  const RawTensor ids{"I32", {1, 2}, std::string("\x01\0\0\0\x02\0\0\0", 8)};
  EXPECT_EQ(read_expert_ids(checkpoint({{"ids", ids}}), "ids", 1, 2, 3),
            (std::vector<std::int32_t>{1, 2}));
  EXPECT_THROW(read_expert_ids(*checkpoint_, "ids", 1, 2, 2), Error);
  EXPECT_THROW(read_expert_ids(*checkpoint_, "ids", 2, 1, 3), Error);
  const RawTensor wide{"I64", {1, 1}, std::string(8, '\xFF')};
  EXPECT_THROW(read_expert_ids(checkpoint({{"ids", wide}}), "ids", 1, 1, 3), Error);
}

}  // namespace
}  // namespace ds4::convert
