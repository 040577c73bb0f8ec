// Which tensors a file has and which types they get.  The byte counts of the published files follow
// from shapes and types, so they check both.
#include "convert/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "convert/tensor_plan.h"

namespace ds4::convert {
namespace {

std::uint64_t total_bytes(const std::vector<PlannedTensor>& tensors, const Recipe& recipe) {
  std::uint64_t bytes = 0;
  for (const PlannedTensor& tensor : tensors) {
    std::uint64_t rows = 1;
    for (std::size_t axis = 1; axis < tensor.shape.size(); ++axis)
      rows *= tensor.shape[axis];
    bytes += rows * row_bytes(recipe.type_of(tensor, {}), tensor.columns());
  }
  return bytes;
}

const PlannedTensor& named(const std::vector<PlannedTensor>& tensors, std::string_view name) {
  for (const PlannedTensor& tensor : tensors)
    if (tensor.name == name) return tensor;
  throw Error(ErrorCode::kNotFound, "no tensor " + std::string(name));
}

TEST(RecipeTest, FlashHasTheSizesOfThePublishedFiles) {
  const auto flash = plan_main(flash_shape());
  EXPECT_EQ(total_bytes(flash, Recipe("q2")), 86'714'775'900U);
  EXPECT_EQ(total_bytes(flash, Recipe("q4")), 164'628'167'004U);
  EXPECT_EQ(total_bytes(plan_mtp(flash_shape()), Recipe("q2")), 3'803'799'020U);
  Recipe mixed("q2");
  for (int layer = 37; layer < 43; ++layer) {
    for (const char* part : {"gate", "up", "down"})
      mixed.add_choice("blk." + std::to_string(layer) + ".ffn_" + part + "_exps=q4_k");
  }
  EXPECT_EQ(total_bytes(flash, mixed), 97'586'411'868U);
}

TEST(RecipeTest, LayersHaveTheirOwnTensors) {
  const auto tensors = plan_main(flash_shape());
  const auto has = [&](std::string_view name) {
    return std::any_of(tensors.begin(), tensors.end(),
                       [&](const auto& t) { return t.name == name; });
  };
  EXPECT_FALSE(has("blk.1.attn_compressor_kv.weight"));
  EXPECT_TRUE(has("blk.2.indexer.attn_q_b.weight"));
  EXPECT_TRUE(has("blk.3.attn_compressor_kv.weight"));
  EXPECT_FALSE(has("blk.3.indexer.attn_q_b.weight"));
  EXPECT_TRUE(has("blk.2.ffn_gate_tid2eid.weight"));
  EXPECT_FALSE(has("blk.2.exp_probs_b.bias"));
  EXPECT_TRUE(has("blk.3.exp_probs_b.bias"));
  const PlannedTensor& experts = named(tensors, "blk.7.ffn_down_exps.weight");
  EXPECT_EQ(experts.source_of(12), "layers.7.ffn.experts.12.w2.weight");
  EXPECT_EQ(experts.shape, (std::vector<std::uint64_t>{2048, 4096, 256}));
  EXPECT_EQ(named(tensors, "blk.2.attn_compressor_ape.weight").shape,
            (std::vector<std::uint64_t>{1024, 4}));
  const auto pro = plan_main(pro_shape());
  EXPECT_EQ(named(pro, "blk.0.attn_compressor_kv.weight").shape,
            (std::vector<std::uint64_t>{7168, 512}));
}

TEST(RecipeTest, LaterChoicesWin) {
  const auto tensors = plan_main(flash_shape());
  Recipe recipe("q2");
  recipe.add_choice("all=f16");
  recipe.add_choice("experts=Q4_K");
  recipe.add_choice("blk.5.ffn_down=q2_k");
  const auto type = [&](std::string_view name) { return recipe.type_of(named(tensors, name), {}); };
  EXPECT_EQ(type("output.weight"), ElementType::kF16);
  EXPECT_EQ(type("blk.4.ffn_down_exps.weight"), ElementType::kQ4K);
  EXPECT_EQ(type("blk.5.ffn_down_exps.weight"), ElementType::kQ2K);
  EXPECT_EQ(type("blk.5.attn_norm.weight"), ElementType::kF32);
  EXPECT_EQ(type("blk.0.ffn_gate_tid2eid.weight"), ElementType::kI32);
  recipe.add_choice("all=q8_0");
  EXPECT_EQ(type("blk.2.attn_compressor_kv.weight"), ElementType::kQ8_0);
  EXPECT_EQ(type("blk.2.attn_compressor_ape.weight"), ElementType::kF16);
}

TEST(RecipeTest, DefaultsGiveWayWhereBlocksDoNotFit) {
  ModelShape shape = tiny_shape();
  shape.width = 160;
  shape.expert_width = 40;
  const auto tensors = plan_main(shape);
  std::vector<std::string> said;
  const LogSink log = [&](LogLevel, std::string_view message) { said.emplace_back(message); };
  Recipe recipe("q2");
  EXPECT_EQ(recipe.type_of(named(tensors, "blk.0.ffn_gate_exps.weight"), log), ElementType::kQ8_0);
  EXPECT_EQ(recipe.type_of(named(tensors, "blk.0.ffn_down_exps.weight"), log), ElementType::kF16);
  EXPECT_EQ(said.size(), 2U);
  recipe.add_choice("experts=q4_k");
  EXPECT_THROW(recipe.type_of(named(tensors, "blk.0.ffn_gate_exps.weight"), log), Error);
}

TEST(RecipeTest, RefusesWhatItCannotRead) {
  EXPECT_THROW(Recipe("q3"), Error);
  Recipe recipe;
  for (const char* bad : {"", "all", "=f16", "all=", "all=q9", "all=i32"})
    EXPECT_THROW(recipe.add_choice(bad), Error) << bad;
  recipe.add_choice("nothing_like_this=f16");
  EXPECT_THROW(recipe.check_choices(plan_main(tiny_shape())), Error);
}

}  // namespace
}  // namespace ds4::convert
