#include "kernels/nearest.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/random.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

TEST(Nearest, AgreesWithDoubleAndTakesTheFirstOfEquals) {
  for_each_simd_target([] {
    SplitMix64 random(4);
    for (const int64_t d : {1, 4, 5})
      for (const int64_t k : {1, 3, 4, 16, 19, 256}) {
        constexpr int64_t kPoints = 30;
        const auto fill = [&](int64_t count) {
          std::vector<float> values(static_cast<std::size_t>(count));
          // Few different numbers, all exact in f32: many centroids are equally near.
          for (float& value : values) value = static_cast<float>(static_cast<int>(random.next() % 7) - 3);
          return values;
        };
        const auto points = fill(kPoints * d), centroids = fill(d * k), biases = fill(k);
        std::vector<int32_t> nearest(kPoints, -1);
        std::vector<float> closeness(kPoints);
        nearest_columns(MatView<const float>(points.data(), kPoints, d),
                        MatView<const float>(centroids.data(), d, k), biases.data(), nearest.data(),
                        closeness.data());
        for (int64_t p = 0; p < kPoints; ++p) {
          double most = -1e9;
          int64_t first = -1;
          for (int64_t c = 0; c < k; ++c) {
            double of = biases[static_cast<std::size_t>(c)];
            for (int64_t i = 0; i < d; ++i)
              of += double{points[static_cast<std::size_t>(p * d + i)]} *
                    centroids[static_cast<std::size_t>(i * k + c)];
            if (of <= most) continue;
            most = of;
            first = c;
          }
          ASSERT_EQ(nearest[static_cast<std::size_t>(p)], first) << "point " << p << " of " << d << " " << k;
          ASSERT_EQ(closeness[static_cast<std::size_t>(p)], most);
        }
      }
  });
}

}  // namespace
}  // namespace kva
