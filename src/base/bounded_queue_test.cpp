#include "base/bounded_queue.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

TEST(BoundedQueue, KeepsOrderAcrossThreads) {
  BoundedQueue<int> queue(4);
  std::jthread producer([&] {
    for (int i = 0; i < 1000; ++i)
      queue.push(i);
    queue.close();
  });
  int expected = 0;
  while (const auto item = queue.pop())
    EXPECT_EQ(*item, expected++);
  EXPECT_EQ(expected, 1000);
}

TEST(BoundedQueue, RefusesWhenFullOrClosed) {
  BoundedQueue<int> queue(1);
  int item = 1;
  EXPECT_TRUE(queue.try_push(item));
  EXPECT_FALSE(queue.try_push(item));
  queue.close();
  EXPECT_FALSE(queue.push(2));
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_EQ(queue.pop(), std::nullopt);
}

TEST(BoundedQueue, AStopRequestEndsAWait) {
  BoundedQueue<int> queue(1);
  std::stop_source source;
  std::jthread stopper([&] { source.request_stop(); });
  EXPECT_EQ(queue.pop(source.get_token()), std::nullopt);
}

TEST(BoundedQueue, WaitsNoLongerThanItsDeadline) {
  using namespace std::chrono_literals;
  BoundedQueue<int> queue(1);
  EXPECT_FALSE(queue.pop_until(std::chrono::steady_clock::now() + 1ms).has_value());
  std::jthread pusher([&] {
    std::this_thread::sleep_for(5ms);
    queue.push(7);
  });
  EXPECT_EQ(queue.pop_until(std::chrono::steady_clock::now() + 10s), 7);
}

}  // namespace
}  // namespace ds4
