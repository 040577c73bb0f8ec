#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <ctime>
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

double process_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

TEST(ThreadPool, BurnsNothingWhileIdle) {
  ThreadPool pool(4);
  pool.run(64, [](std::size_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = process_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  // Three workers that spun would use up to 0.3 s.
  EXPECT_LT(process_seconds() - before, 0.02);
}

// Nodes that the machine does not have: threads are not bound, lists are kept.
TEST(ThreadPool, RunsEachTaskOnceOnAnyNodes) {
  for (const std::size_t threads : {1U, 3U, 4U}) {
    ThreadPool pool(threads, {{500, 501}, {502}, {503, 504}});
    ASSERT_EQ(pool.node_count(), 3U);
    for (const std::vector<std::size_t>& first :
         {std::vector<std::size_t>{0, 0, 0, 0}, std::vector<std::size_t>{0, 0, 1, 1},
          std::vector<std::size_t>{0, 5, 5, 900}}) {
      std::vector<int> hits(first.back(), 0);
      for (int round = 0; round < 50; ++round)
        pool.run_by_node(first, [&](std::size_t i) { ++hits[i]; });
      for (const int hit : hits)
        EXPECT_EQ(hit, 50);
    }
    std::vector<int> hits(11, 0);
    pool.run(hits.size(), [&](std::size_t i) { ++hits[i]; });
    EXPECT_EQ(hits, std::vector<int>(11, 1));
  }
}

// A thread takes what its own node has before it helps others.
TEST(ThreadPool, TasksOfANodeRunOnItsThreads) {
  ThreadPool pool(2, {{500}, {501}});
  std::vector<std::thread::id> ran(2);
  std::atomic<int> started = 0;
  const std::vector<std::size_t> first = {0, 1, 2};
  pool.run_by_node(first, [&](std::size_t i) {
    ran[i] = std::this_thread::get_id();
    // Each thread holds its first task until the other has one too.
    ++started;
    while (started != 2)
      std::this_thread::yield();
  });
  EXPECT_NE(ran[0], ran[1]);
  EXPECT_EQ(ran[0], std::this_thread::get_id());
}

TEST(ThreadPool, ThereIsAtLeastOneCore) {
  EXPECT_GE(physical_core_count(), 1U);
}

}  // namespace
}  // namespace ds4
