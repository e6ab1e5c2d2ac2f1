#include "kernels/exact_products.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/dtype.h"

namespace kva {
namespace {

TEST(ExactProducts, AreSumsInOrder) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int64_t tokens : {1, 3, 4, 17})
    for (const int64_t width : {1, 7, 64, 80, 129}) {
      std::vector<float> rows(static_cast<std::size_t>(tokens * width)),
          vectors(static_cast<std::size_t>(width * width)), out(rows.size());
      for (float& x : rows) x = normal(random) * (random() % 5 == 0 ? 1e4f : 1.0f);
      for (float& x : vectors) x = f32_from_f16(f16_from_f32(normal(random)));
      exact_products({rows.data(), tokens, width}, {vectors.data(), width, width},
                     {out.data(), tokens, width});
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t v = 0; v < width; ++v) {
          double sum = 0.0;
          for (int64_t c = 0; c < width; ++c)
            sum += double{rows[static_cast<std::size_t>(t * width + c)]} *
                   double{vectors[static_cast<std::size_t>(v * width + c)]};
          ASSERT_EQ(out[static_cast<std::size_t>(t * width + v)], static_cast<float>(sum))
              << tokens << " tokens, width " << width;
        }
    }
}

}  // namespace
}  // namespace kva
