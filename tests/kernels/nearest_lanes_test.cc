#include "kernels/nearest_lanes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/nearest.h"
#include "kernels/random.h"
#include "tests/kernels/host_warp.h"

namespace kva {
namespace {

// The lanes' choice from such products, beside the CPU's.
void expect_as_the_cpu(const std::vector<float>& dots, const std::vector<float>& squares) {
  const auto centroids = static_cast<int32_t>(squares.size());
  const auto points = static_cast<int64_t>(dots.size()) / centroids;
  const std::vector<float> point_squares(static_cast<std::size_t>(points), 100.0f);
  std::vector<int32_t> nearest(point_squares.size(), -1);
  std::vector<float> distances(point_squares.size(), -1.0f);
  const NearestJob job{dots.data(),          points,         centroids,       squares.data(),
                       point_squares.data(), nearest.data(), distances.data()};
  HostWarp warp;
  for (int64_t p = 0; p < points; ++p) warp.run([&](HostWarp::Lane& lane) { nearest_row(lane, job, p); });
  for (int64_t p = 0; p < points; ++p) {
    const float* row = dots.data() + p * centroids;
    const int64_t expected = least_distance(row, squares.data(), centroids);
    const auto at = static_cast<std::size_t>(p);
    ASSERT_EQ(nearest[at], expected) << "point " << p << " of " << centroids;
    const float squared =
        squared_distance(100.0f, squares[static_cast<std::size_t>(expected)], row[expected]);
    if (!std::isnan(row[expected])) {
      ASSERT_EQ(distances[at], squared);
    }
  }
}

TEST(NearestLanes, ChooseAsTheCpuDoes) {
  SplitMix64 random(9);
  for (const int64_t centroids : {1, 2, 31, 32, 33, 100, 257}) {
    const auto draw = [&](int64_t count) {
      std::vector<float> values(static_cast<std::size_t>(count));
      // Few different numbers: many centroids are equally near.
      for (float& value : values) value = static_cast<float>(static_cast<int>(random.next() % 7) - 3);
      return values;
    };
    expect_as_the_cpu(draw(20 * centroids), draw(centroids));
  }
}

TEST(NearestLanes, WhatIsNoNumberIsNeverNearest) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  expect_as_the_cpu({nan, 1, nan, nan, nan, nan}, {0, 0, 0});
}

}  // namespace
}  // namespace kva
