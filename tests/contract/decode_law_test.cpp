// The decode law: once a session exists, a decode step allocates nothing.
#include <gtest/gtest.h>

#include "cpu/cpu_executor.h"
#include "engine/session.h"
#include "sample/sampler.h"
#include "support/allocation_count.h"
#include "support/random_model.h"

namespace ds4 {
namespace {

TEST(DecodeLaw, NoAllocationInAHundredSteps) {
  const test::RandomModel model(test::small_shape());
  Engine engine(
      {},
      cpu::make_cpu_executor(model.config(), model.weights(), {.thread_count = 2, .rows_max = 64}),
      nullptr, nullptr);
  // The interval puts checkpoints inside the hundred steps.
  Session session(engine, {.context = 600, .checkpoint_interval = 128, .checkpoint_count = 3});
  sample::Sampler sampler(model.config().vocab_size, 1);
  session.sync(test::random_tokens(model.config(), 340, 1));
  const auto step = [&] { session.eval(sampler.sample(session.logits(), {})); };
  for (int i = 0; i < 3; ++i)
    step();
  const std::uint64_t before = test::allocation_count();
  for (int i = 0; i < 100; ++i)
    step();
  EXPECT_EQ(test::allocation_count() - before, 0U);

  const auto speculate = [&] {
    session.eval_speculative(sample::argmax(session.logits()), 3, TokenId{-1});
  };
  speculate();
  const std::uint64_t before_drafts = test::allocation_count();
  for (int i = 0; i < 20; ++i)
    speculate();
  EXPECT_EQ(test::allocation_count() - before_drafts, 0U);
}

}  // namespace
}  // namespace ds4
