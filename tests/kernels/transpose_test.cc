#include "kernels/transpose.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

TEST(Transpose, EveryShapeAndNothingBeside) {
  for_each_simd_target([] {
    for (int64_t rows : {0, 1, 3, 4, 5, 64}) {
      for (int64_t cols : {0, 1, 4, 7, 62}) {
        std::vector<float> from(static_cast<std::size_t>(rows * (cols + 2)));
        for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i);
        std::vector<float> to(static_cast<std::size_t>(cols * (rows + 3)) + 1, -1.0f);
        const MatView<const float> source(from.data(), rows, cols, cols + 2);
        const MatView<float> target(to.data(), cols, rows, rows + 3);
        transpose(source, target);
        for (int64_t c = 0; c < cols; ++c) {
          for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(target.at(c, r), source.at(r, c));
          ASSERT_EQ(target.row(c)[rows], -1.0f);
        }
      }
    }
  });
}

}  // namespace
}  // namespace kva
