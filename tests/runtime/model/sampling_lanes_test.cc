// Choosing tokens as the device does, run on the host, against the CPU's sampler.
#include "kernels/sampling_lanes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "runtime/model/sampler.h"
#include "tests/kernels/host_warp.h"

namespace kva {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(int32_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> logits(static_cast<std::size_t>(count));
  for (float& x : logits) x = static_cast<float>(random() % 64) / 8.0f - 4.0f;  // many are equal
  return logits;
}

Likeliest likeliest(HostWarp& warp, const std::vector<float>& logits) {
  std::vector<Likeliest> found(32);
  warp.run([&](HostWarp::Lane& lane) {
    found[static_cast<std::size_t>(lane.lane())] =
        likeliest_of(lane, logits.data(), 0, static_cast<int32_t>(logits.size()));
  });
  for (const Likeliest& other : found) EXPECT_EQ(other.token, found[0].token);
  return found[0];
}

std::vector<int32_t> order_of(const std::vector<float>& logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return descending_key(logits[static_cast<std::size_t>(a)]) <
           descending_key(logits[static_cast<std::size_t>(b)]);
  });
  return order;
}

TEST(SamplingLanes, TheLikeliestTokenIsTheCpus) {
  HostWarp warp;
  for (const int32_t count : {1, 2, 31, 32, 33, 1000}) {
    std::vector<float> logits = random_logits(count, static_cast<unsigned>(count));
    EXPECT_EQ(token_or_fault(likeliest(warp, logits)), most_likely(logits));
    std::fill(logits.begin(), logits.end(), -kInfinity);
    EXPECT_EQ(token_or_fault(likeliest(warp, logits)), 0);
    logits.back() = kInfinity;
    EXPECT_EQ(token_or_fault(likeliest(warp, logits)), -count);
    logits[logits.size() / 2] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(token_or_fault(likeliest(warp, logits)), -1 - count / 2);
  }
}

TEST(SamplingLanes, KeysOrderAsTheSamplerDoes) {
  std::vector<float> logits = random_logits(500, 3);
  logits.insert(logits.end(), {0.0f, -0.0f, -kInfinity, 1e-40f, -1e-40f, 3e38f, -3e38f});
  const std::vector<int32_t> order = order_of(logits);
  std::vector<int32_t> expected(logits.size());
  std::iota(expected.begin(), expected.end(), 0);
  std::sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  EXPECT_EQ(order, expected);
}

TEST(SamplingLanes, PicksWhatTheSamplerPicks) {
  HostWarp warp;
  for (const int32_t count : {1, 5, 33, 700})
    for (const int64_t top_k : {0, 1, 7, 40})
      for (const double top_p : {1.0, 0.9, 0.3, 1e-9})
        for (const double temperature : {0.2, 1.0, 3.0}) {
          const std::vector<float> logits = random_logits(count, static_cast<unsigned>(count));
          const std::vector<int32_t> order = order_of(logits);
          const SamplerOptions options{temperature, top_k, top_p, 11};
          Sampler sampler(options);
          SplitMix64 random(options.seed);
          const Likeliest best = likeliest(warp, logits);
          const bool sorts = (top_k > 0 && top_k < count) || top_p < 1.0;
          for (int pick = 0; pick < 8; ++pick) {
            const SampleJob job{logits.data(),   sorts ? order.data() : nullptr,
                                count,           static_cast<int32_t>(top_k),
                                top_p,           temperature,
                                random.uniform()};
            std::vector<int32_t> found(32);
            SampleState state;
            std::memset(&state, 0xff, sizeof state);
            warp.run([&](HostWarp::Lane& lane) {
              found[static_cast<std::size_t>(lane.lane())] = sample(lane, job, best, state);
            });
            const int32_t expected = sampler.pick(logits);
            for (const int32_t token : found)
              ASSERT_EQ(token, expected) << count << " tokens, top-k " << top_k << ", top-p " << top_p;
          }
        }
}

// Uniform numbers at the very bounds between tokens, where another order of summing decides otherwise.
TEST(SamplingLanes, PicksTheSameAtTheBounds) {
  HostWarp warp;
  for (const double top_p : {1.0, 0.8}) {
    const std::vector<float> logits = random_logits(300, 5);
    std::vector<int32_t> order(300);
    std::iota(order.begin(), order.end(), 0);
    if (top_p < 1.0) order = order_of(logits);
    const Likeliest best = likeliest(warp, logits);
    SampleJob job{.logits = logits.data(), .order = order.data(), .vocabulary = 300, .top_p = top_p};
    job.temperature = 0.7;
    double total = 0.0, sum = 0.0;
    for (int32_t i = 0; i < 300; ++i) total += sample_weight(job, best, i);
    int32_t last = -1;
    for (int32_t i = 0; i < 240; ++i) {
      sum += sample_weight(job, best, i);
      const double bound = std::min(sum / (total * top_p), 1.0 - 0x1p-53);
      for (const double uniform : {std::nextafter(bound, 0.0), bound, std::nextafter(bound, 1.0)}) {
        if (uniform >= 1.0) continue;
        job.uniform = uniform;
        SampleState state;
        int32_t found = -1;
        warp.run([&](HostWarp::Lane& lane) {
          const int32_t token = sample(lane, job, best, state);
          if (lane.lane() == 0) found = token;
        });
        ASSERT_EQ(found,
                  Sampler({}).chosen(logits, {.temperature = 0.7, .top_p = top_p, .uniform = uniform}));
        // And never one far from the bound.
        const auto place = static_cast<int32_t>(std::find(order.begin(), order.end(), found) - order.begin());
        ASSERT_GE(place, last);
        ASSERT_LE(place, i + 1);
        last = std::max(last, place);
      }
    }
  }
}

// Against the C library's, which is right to half a unit in the last place.
TEST(SamplingLanes, ExponentialsAreThoseOfTheLibrary) {
  for (int i = 0; i < 200000; ++i) {
    const double x = -745.0 * i / 200000.0 * (i % 2 ? 1.0 : 1e-3);
    const double expected = std::exp(x);
    ASSERT_NEAR(exp_of(x), expected, expected > 1e-290 ? 4e-16 * expected : 1e-305) << x;
  }
  EXPECT_EQ(exp_of(0.0), 1.0);
  EXPECT_EQ(exp_of(-1000.0), 0.0);
  EXPECT_EQ(exp_of(-static_cast<double>(kInfinity)), 0.0);
}

}  // namespace
}  // namespace kva
