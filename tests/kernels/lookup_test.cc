#include "kernels/lookup.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/random.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

// Against the definition in double, with guards, for rows that are shorter and longer than any vector.
TEST(Lookup, AgreesWithItsDefinition) {
  for_each_simd_target([] {
    SplitMix64 random(4);
    const auto number = [&] { return static_cast<float>(random.uniform() * 4.0 - 2.0); };
    for (const auto& [cols, count] : std::vector<std::pair<int64_t, std::size_t>>{
             {1, 4}, {7, 8}, {16, 16}, {20, 3}, {64, 4}, {64, 8}, {64, 16}, {64, 17}, {131, 256}}) {
      constexpr int64_t kRows = 3;
      std::vector<float> levels(count), scales(256), offsets(256);
      for (auto* of : {&levels, &scales, &offsets})
        for (float& value : *of) value = number();
      std::vector<uint8_t> codes(static_cast<std::size_t>(kRows * cols));
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random.next() % count);
      for (const bool by_token : {true, false}) {
        const int64_t stride = cols + 5;
        std::vector<float> rows(static_cast<std::size_t>(kRows * stride), 99.0f);
        lookup_levels(codes.data(), levels, by_token ? ScaleAxis::kToken : ScaleAxis::kChannel, scales.data(),
                      offsets.data(), MatView<float>(rows.data(), kRows, cols, stride));
        for (int64_t t = 0; t < kRows; ++t)
          for (int64_t c = 0; c < stride; ++c) {
            const float got = rows[static_cast<std::size_t>(t * stride + c)];
            if (c >= cols) {
              ASSERT_EQ(got, 99.0f) << "written past the row";
              continue;
            }
            const auto v = static_cast<std::size_t>(by_token ? t : c);
            const double level = levels[codes[static_cast<std::size_t>(t * cols + c)]];
            ASSERT_NEAR(got, offsets[v] + scales[v] * level, 1e-6) << t << " " << c << " of " << cols;
          }
      }
    }
  });
}

}  // namespace
}  // namespace kva
