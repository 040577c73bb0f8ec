#include "roofline.h"

#include <gtest/gtest.h>

#include "support/random_model.h"

namespace ds4::bench {
namespace {

class RooflineTest : public testing::Test {
 protected:
  RooflineTest()
      : layout_(model_.config(), RowCodec::kPacked, true),
        traffic_(weight_traffic(model_.weights(), model_.config())),
        machine_{.copy_gbps = 100, .peak_tflops = 10},
        roof_(model_.config(), layout_, traffic_, machine_) {}

  test::RandomModel model_{test::small_shape()};
  StateLayout layout_;
  WeightTraffic traffic_;
  MachineReport machine_;
  Roofline roof_;
};

TEST_F(RooflineTest, EveryTensorIsCountedOnce) {
  std::uint64_t all = 0;
  std::uint64_t left_out = model_.weights().embedding.bytes.size();
  model_.weights().for_each([&](const Weight& weight) { all += weight.bytes.size(); });
  for (const LayerWeights& layer : model_.weights().layers)
    left_out += layer.hash_table.bytes.size();
  const auto& head = model_.weights().head;
  left_out += head.norm.bytes.size() + head.hc.base.bytes.size() + head.hc.scale.bytes.size();
  const MtpWeights& mtp = *model_.weights().mtp;
  for (const Weight* weight : {&mtp.token_norm, &mtp.stream_norm, &mtp.head.norm, &mtp.head.hc.fn,
                               &mtp.head.hc.base, &mtp.head.hc.scale})
    left_out += weight->bytes.size();
  EXPECT_EQ(traffic_.shared_bytes + traffic_.expert_bytes + traffic_.output_bytes, all - left_out);
}

TEST_F(RooflineTest, ABatchReadsSharedWeightsOnceAndAtMostAllExperts) {
  const double one = traffic_.batch_bytes(1, 1);
  const double eight = traffic_.batch_bytes(8, 8);
  const double many = traffic_.batch_bytes(4000, 0);
  const double used = static_cast<double>(traffic_.experts_used) / traffic_.expert_count;
  EXPECT_NEAR(one,
              static_cast<double>(traffic_.shared_bytes + traffic_.output_bytes +
                                  traffic_.embedding_bytes) +
                  static_cast<double>(traffic_.expert_bytes) * used,
              1);
  EXPECT_GT(eight, one);
  EXPECT_LT(eight, 8 * one);
  EXPECT_NEAR(many - 4000.0 * static_cast<double>(traffic_.embedding_bytes),
              static_cast<double>(traffic_.shared_bytes + traffic_.expert_bytes),
              static_cast<double>(traffic_.expert_bytes) * 1e-3);
}

TEST_F(RooflineTest, TheStateGrowsWithTheContext) {
  EXPECT_GT(roof_.state_bytes(0), 0);
  double before = 0;
  for (const std::uint32_t position : {0U, 10U, 100U, 1000U, 100000U}) {
    EXPECT_GT(roof_.state_bytes(position), before);
    before = roof_.state_bytes(position);
  }
  // Far out only compressed rows of ratio 128 and index keys of ratio 4 are added.
  double per_token = 0;
  for (std::uint32_t l = 0; l < model_.config().layer_count; ++l) {
    const LayerPlan& plan = model_.config().layer(LayerIndex{l});
    if (plan.kind() == LayerKind::kIndexed)
      per_token += static_cast<double>(layout_.row_bytes(StatePart::kIndexKeys, LayerIndex{l})) / 4;
    if (plan.kind() == LayerKind::kCompressed)
      per_token += static_cast<double>(layout_.row_bytes(StatePart::kWindow, LayerIndex{l})) / 128;
  }
  EXPECT_NEAR(roof_.state_bytes(1280000 - 1) - roof_.state_bytes(128000 - 1), per_token * 1152000,
              1);
}

TEST_F(RooflineTest, SharesAreOfTheMachinesBest) {
  EXPECT_NEAR(roof_.decode_share(1e9, 0.02), 0.5, 1e-12);
  const double flops = roof_.prefill_flops(0, 4096);
  EXPECT_GT(flops, 4096 * traffic_.row_flops(false));
  const double floor_s = std::max(flops / 10e12, 8 * traffic_.batch_bytes(512, 0) / 100e9);
  EXPECT_NEAR(roof_.prefill_share(0, 4096, 512, 2 * floor_s), 0.5, 1e-9);
}

TEST_F(RooflineTest, ShareOfAnUnknownBestIsZero) {
  const MachineReport unknown;
  const Roofline roof(model_.config(), layout_, traffic_, unknown);
  EXPECT_EQ(roof.decode_share(1e9, 1), 0);
  EXPECT_EQ(roof.prefill_share(0, 100, 10, 1), 0);
}

}  // namespace
}  // namespace ds4::bench
