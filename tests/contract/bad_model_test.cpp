// Model files that are sound GGUF and wrong for this graph: each is refused with a message that
// names what was found and what was expected.
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "gguf/writer.h"
#include "model/weights.h"
#include "support/random_model.h"

namespace ds4 {
namespace {

// How one copy of a good file differs from it.
struct Change {
  std::string drop_tensor = {};
  std::string reshape_tensor = {};              // its first two axes swapped
  std::string retype_tensor = {};               // stored as I32
  std::string key = {};                         // replaced by ...
  std::function<void(gguf::Writer&)> set = {};  // ... this; none: dropped
};

void copy_changed(const gguf::Reader& from, const std::filesystem::path& to, const Change& change) {
  gguf::Writer writer(to);
  for (const std::string_view key : from.keys())
    if (key != change.key) writer.set(key, *from.find(key));
  if (change.set) change.set(writer);
  std::vector<std::pair<std::size_t, const gguf::TensorInfo*>> tensors;
  for (const gguf::TensorInfo& tensor : from.tensors()) {
    if (tensor.name == change.drop_tensor) continue;
    auto shape = tensor.shape;
    if (tensor.name == change.reshape_tensor) std::swap(shape.at(0), shape.at(1));
    const ElementType type = tensor.name == change.retype_tensor ? ElementType::kI32 : *tensor.type;
    tensors.emplace_back(writer.add_tensor(tensor.name, type, shape), &tensor);
  }
  writer.begin_data();
  for (const auto& [index, tensor] : tensors)
    writer.write_tensor(index, 0, tensor->bytes);
  writer.commit();
}

class BadModelTest : public testing::Test {
 protected:
  // The message with which the changed file is refused, empty when it is taken.
  std::string refusal(const Change& change) {
    const auto path = std::filesystem::path(testing::TempDir()) /
                      ("ds4-bad-" + std::to_string(::getpid()) + ".gguf");
    copy_changed(model_.file(), path, change);
    const gguf::Reader file(path);
    std::filesystem::remove(path);
    try {
      const ModelConfig config = read_config(file, {});
      bind_weights(file, nullptr, config, {});
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  }

  test::RandomModel model_{test::small_shape()};
};

using testing::AllOf;
using testing::HasSubstr;

TEST_F(BadModelTest, AGoodFileIsTaken) {
  EXPECT_EQ(refusal({}), "");
}

TEST_F(BadModelTest, WrongArchitecture) {
  EXPECT_THAT(
      refusal({.key = "general.architecture",
               .set = [](gguf::Writer& w) { w.set_string("general.architecture", "llama"); }}),
      AllOf(HasSubstr("'llama'"), HasSubstr("'deepseek4'")));
}

TEST_F(BadModelTest, MissingTensorIsNamed) {
  EXPECT_THAT(refusal({.drop_tensor = "blk.2.attn_compressor_kv.weight"}),
              AllOf(HasSubstr("blk.2.attn_compressor_kv.weight"), HasSubstr("missing")));
  EXPECT_THAT(refusal({.drop_tensor = "output.weight"}), HasSubstr("output.weight"));
  EXPECT_THAT(refusal({.drop_tensor = "mtp.0.hnorm.weight"}), HasSubstr("mtp.0.hnorm.weight"));
}

TEST_F(BadModelTest, WrongShapeSaysBoth) {
  EXPECT_THAT(
      refusal({.reshape_tensor = "blk.0.attn_q_b.weight"}),
      AllOf(HasSubstr("blk.0.attn_q_b.weight"), HasSubstr("[512, 32]"), HasSubstr("[32, 512]")));
}

TEST_F(BadModelTest, UnsupportedTypeSaysWhatRuns) {
  EXPECT_THAT(refusal({.retype_tensor = "blk.1.attn_kv.weight"}),
              AllOf(HasSubstr("blk.1.attn_kv.weight"), HasSubstr("I32"), HasSubstr("Q8_0")));
}

TEST_F(BadModelTest, MissingKeyIsNamed) {
  EXPECT_THAT(refusal({.key = "deepseek4.expert_count"}), HasSubstr("deepseek4.expert_count"));
}

TEST_F(BadModelTest, ImpossibleCounts) {
  const auto with_u32 = [&](const char* key, std::uint32_t value) {
    return refusal({.key = key, .set = [=](gguf::Writer& w) { w.set_u32(key, value); }});
  };
  EXPECT_THAT(with_u32("deepseek4.block_count", 0), HasSubstr("block_count"));
  EXPECT_THAT(with_u32("deepseek4.block_count", 4000000000U), HasSubstr("block_count"));
  EXPECT_THAT(with_u32("deepseek4.embedding_length", 0), HasSubstr("embedding_length"));
  EXPECT_THAT(with_u32("deepseek4.expert_used_count", 99), HasSubstr("expert_used_count"));
  EXPECT_THAT(with_u32("deepseek4.attention.head_count", 3), HasSubstr("heads"));
  EXPECT_THAT(with_u32("deepseek4.rope.dimension_count", 63), HasSubstr("dimension_count"));
  EXPECT_THAT(with_u32("deepseek4.attention.indexer.key_length", 96), HasSubstr("key_length"));
}

TEST_F(BadModelTest, UnknownRatioIsNamed) {
  const std::vector<std::uint32_t> ratios{0, 0, 4, 64, 4, 128, 0};
  EXPECT_THAT(refusal({.key = "deepseek4.attention.compress_ratios",
                       .set =
                           [&](gguf::Writer& w) {
                             w.set_u32_array("deepseek4.attention.compress_ratios", ratios);
                           }}),
              AllOf(HasSubstr("layer 3"), HasSubstr("64"), HasSubstr("0, 4 or 128")));
}

TEST_F(BadModelTest, ASliceOfTheLayersLoadsForThatSlice) {
  // Layers 4 and 5 gone: what is left are layers 0 to 3, without an output.
  const auto path = std::filesystem::path(testing::TempDir()) /
                    ("ds4-slice-" + std::to_string(::getpid()) + ".gguf");
  {
    gguf::Writer writer(path);
    for (const std::string_view key : model_.file().keys())
      writer.set(key, *model_.file().find(key));
    std::vector<std::pair<std::size_t, const gguf::TensorInfo*>> kept;
    for (const gguf::TensorInfo& tensor : model_.file().tensors()) {
      if (tensor.name.rfind("blk.4.", 0) == 0 || tensor.name.rfind("blk.5.", 0) == 0) continue;
      kept.emplace_back(writer.add_tensor(tensor.name, *tensor.type, tensor.shape), &tensor);
    }
    writer.begin_data();
    for (const auto& [index, tensor] : kept)
      writer.write_tensor(index, 0, tensor->bytes);
    writer.commit();
  }
  const gguf::Reader file(path);
  std::filesystem::remove(path);
  const ModelConfig config = read_config(file, {});
  const Weights weights = bind_weights(file, nullptr, config, {});
  EXPECT_EQ(weights.first_layer, 0U);
  EXPECT_EQ(weights.layers.size(), 4U);
  EXPECT_TRUE(weights.embedding.present());
  EXPECT_FALSE(weights.output.present());
}

}  // namespace
}  // namespace ds4
