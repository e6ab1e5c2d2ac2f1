#include "kernels/parallel.h"

#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kva {
namespace {

TEST(ThreadPool, RunsEveryIndexOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t count : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      pool.parallel_for(count, [&](int64_t i, int worker) {
        EXPECT_GE(worker, 0);
        EXPECT_LT(worker, threads);
        seen[static_cast<std::size_t>(i)]++;
      });
      for (const auto& times : seen) EXPECT_EQ(times.load(), 1);
    }
  }
}

TEST(ThreadPool, NestedCallsRunInline) {
  ThreadPool pool(3);
  std::atomic<int> total{0};
  pool.parallel_for(8, [&](int64_t, int outer) {
    pool.parallel_for(4, [&](int64_t, int inner) {
      EXPECT_EQ(inner, outer);
      ++total;
    });
  });
  EXPECT_EQ(total.load(), 32);
}

// As a loop would, whichever thread comes first.
TEST(ThreadPool, RethrowsWhatTheLowestIndexThrew) {
  ThreadPool pool(4);
  for (int round = 0; round < 100; ++round) {
    std::string thrown;
    try {
      pool.parallel_for(64, [&](int64_t i, int) {
        if (i == 5) std::this_thread::sleep_for(std::chrono::microseconds(200));
        if (i >= 5) throw std::runtime_error(std::to_string(i));
      });
    } catch (const std::runtime_error& error) {
      thrown = error.what();
    }
    ASSERT_EQ(thrown, "5");
  }
}

TEST(ThreadPool, RethrowsAndStaysUsable) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.parallel_for(100,
                                 [](int64_t i, int) {
                                   if (i == 7) throw std::runtime_error("seven");
                                 }),
               std::runtime_error);
  std::atomic<int> total{0};
  pool.parallel_for(10, [&](int64_t, int) { ++total; });
  EXPECT_EQ(total.load(), 10);
}

// Processor time of this process, in seconds.
double used_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

TEST(ThreadPool, ManyTinyJobsInARow) {
  ThreadPool pool(4);
  int64_t total = 0;
  for (int64_t round = 0; round < 20000; ++round) {
    std::atomic<int64_t> sum{0};
    pool.parallel_for(3, [&](int64_t i, int) { sum += i + round; });
    total += sum;
  }
  EXPECT_EQ(total, 20000 * 3 + 3 * (20000LL * 19999 / 2));
}

TEST(ThreadPool, IdleThreadsSleep) {
  ThreadPool pool(8);
  pool.parallel_for(100, [](int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = used_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_LT(used_seconds() - before, 0.1);  // one that spun would use 0.5
}

}  // namespace
}  // namespace kva
