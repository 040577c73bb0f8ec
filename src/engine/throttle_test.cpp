#include "engine/throttle.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "base/error.h"

namespace ds4 {
namespace {

double paused_seconds(Throttle& throttle, std::chrono::milliseconds work) {
  throttle.start();
  std::this_thread::sleep_for(work);
  const auto before = std::chrono::steady_clock::now();
  throttle.pause();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
}

TEST(Throttle, SleepsInProportionToWork) {
  Throttle throttle;
  EXPECT_LT(paused_seconds(throttle, std::chrono::milliseconds(20)), 0.005);
  throttle.set_percent(50);
  EXPECT_GE(paused_seconds(throttle, std::chrono::milliseconds(20)), 0.019);
  throttle.set_percent(25);
  EXPECT_GE(paused_seconds(throttle, std::chrono::milliseconds(20)), 0.055);
}

TEST(Throttle, RefusesWhatIsNoPercentage) {
  Throttle throttle;
  EXPECT_THROW(throttle.set_percent(0), Error);
  EXPECT_THROW(throttle.set_percent(101), Error);
  EXPECT_EQ(throttle.percent(), 100);
}

}  // namespace
}  // namespace ds4
