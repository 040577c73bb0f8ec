#include "base/thread_pool.h"

#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

TEST(ThreadPool, RunsEachTaskOnceForAnyTeam) {
  for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.thread_count(), threads);
    for (const std::size_t tasks : {0U, 1U, 2U, 7U, 1000U}) {
      std::vector<int> hits(tasks, 0);
      pool.run(tasks, [&](std::size_t i) { ++hits[i]; });
      EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), std::size_t{0}), tasks);
    }
  }
}

TEST(ThreadPool, ManyShortRegionsSeeEachOthersWrites) {
  ThreadPool pool(4);
  std::vector<long> values(64, 0);
  for (int round = 0; round < 2000; ++round)
    pool.run(values.size(), [&](std::size_t i) { ++values[i]; });
  for (const long value : values)
    EXPECT_EQ(value, 2000);
}

TEST(ThreadPool, WakesAfterSleeping) {
  ThreadPool pool(2);
  int done = 0;
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> count = 0;
    pool.run(2, [&](std::size_t) { ++count; });
    done += count;
  }
  EXPECT_EQ(done, 6);
}

TEST(ThreadPool, ThereIsAtLeastOneCore) {
  EXPECT_GE(physical_core_count(), 1U);
}

}  // namespace
}  // namespace ds4
