// Importance files: look-up by tensor and expert, and what a damaged file cannot do.
#include "convert/imatrix.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace ds4::convert {
namespace {

using ::testing::ElementsAre;

class DatBytes {
 public:
  DatBytes& i32(std::int32_t value) { return raw(value); }
  DatBytes& text(const std::string& text) {
    i32(static_cast<std::int32_t>(text.size()));
    bytes_ += text;
    return *this;
  }
  DatBytes& entry(const std::string& name, std::int32_t calls, const std::vector<float>& values) {
    text(name).i32(calls).i32(static_cast<std::int32_t>(values.size()));
    for (const float value : values)
      raw(value);
    return *this;
  }
  const std::string& string() const { return bytes_; }

 private:
  template <class T>
  DatBytes& raw(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    bytes_.append(bytes, sizeof value);
    return *this;
  }
  std::string bytes_;
};

Imatrix read(const std::string& bytes) {
  return Imatrix(std::as_bytes(std::span(bytes)), "test.dat");
}

const PlannedTensor kStack{.name = "blk.0.ffn_up_exps.weight",
                           .source = "layers.0.ffn.experts.{}.w3.weight",
                           .tensor_class = TensorClass::kRoutedUp,
                           .shape = {2, 4, 3}};
const PlannedTensor kMatrix{.name = "blk.0.attn_kv.weight",
                            .source = "layers.0.attn.wkv.weight",
                            .tensor_class = TensorClass::kAttention,
                            .shape = {2, 4}};

TEST(ImatrixTest, FindsTheValuesOfAnExpert) {
  const std::string bytes = DatBytes()
                                .i32(2)
                                .entry(kStack.name, 2, {2, 4, 6, 8, 10, 12})
                                .entry(kMatrix.source, 0, {7, 8})
                                .i32(5)
                                .text("prompts.txt")
                                .string();
  const Imatrix imatrix = read(bytes);
  EXPECT_THAT(imatrix.find(kStack, 0), ElementsAre(1, 2));
  EXPECT_THAT(imatrix.find(kStack, 2), ElementsAre(5, 6));
  EXPECT_THAT(imatrix.find(kMatrix, 0), ElementsAre(7, 8));
  PlannedTensor other = kMatrix;
  other.name = other.source = "other";
  EXPECT_TRUE(imatrix.find(other, 0).empty());
}

TEST(ImatrixTest, AnExpertsOwnEntryComesFirst) {
  const std::string bytes = DatBytes()
                                .i32(2)
                                .entry(kStack.name, 1, {1, 2, 3, 4, 5, 6})
                                .entry(kStack.name + ".expert_1", 1, {9, 9})
                                .string();
  const Imatrix imatrix = read(bytes);
  EXPECT_THAT(imatrix.find(kStack, 1), ElementsAre(9, 9));
  EXPECT_THAT(imatrix.find(kStack, 2), ElementsAre(5, 6));
}

TEST(ImatrixTest, RefusesDamage) {
  EXPECT_TRUE(read(DatBytes().i32(0).string()).empty());
  const std::string sound = DatBytes().i32(1).entry("a", 1, {1, 2}).string();
  for (std::size_t kept = 0; kept < sound.size(); ++kept)
    EXPECT_THROW(read(sound.substr(0, kept)), Error) << kept;
  EXPECT_THROW(read(DatBytes().i32(-1).string()), Error);
  EXPECT_THROW(read(DatBytes().i32(1).text("a").i32(1).i32(0x7FFFFFFF).string()), Error);
  EXPECT_THROW(read(DatBytes().i32(1).entry("a", 1, {1, NAN}).string()), Error);
  EXPECT_THROW(read(DatBytes().i32(1).entry("a", 1, {1, -1}).string()), Error);
  EXPECT_THROW(read(DatBytes().i32(2).entry("a", 1, {1}).entry("a", 1, {1}).string()), Error);
  const Imatrix wrong = read(DatBytes().i32(1).entry(kStack.name, 1, {1, 2, 3}).string());
  EXPECT_THROW(wrong.find(kStack, 0), Error);
}

}  // namespace
}  // namespace ds4::convert
