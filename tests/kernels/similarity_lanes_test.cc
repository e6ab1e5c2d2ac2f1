#include "kernels/similarity_lanes.h"

#include <gtest/gtest.h>

#include "tests/kernels/lane_device.h"
#include "tests/kernels/sharing_case.h"
#include "tests/kernels/similarity_case.h"

namespace kva {
namespace {

TEST(SimilarityLanes, FindWhatTheCpuFinds) {
  const auto device = make_lane_device();
  for (const auto& [pages, numbers] :
       {std::pair{1, 3}, {2, 1}, {9, 3}, {33, 64}, {65, 100}, {130, 65}, {300, 32}}) {
    SCOPED_TRACE(::testing::Message() << pages << " pages of " << numbers);
    expect_pairs_as_on_the_cpu(*device, pages, numbers);
    expect_cover_as_on_the_cpu(*device, pages, numbers);
  }
}

TEST(SimilarityLanes, FindExactDuplicates) {
  const auto device = make_lane_device();
  for (const int64_t groups : {1, 2, 9, 33, 65})
    for (const int64_t bytes : {2, 10, 128}) expect_duplicates_as_on_the_cpu(*device, groups, bytes);
}

TEST(SimilarityLanes, KeysOrderAsTheNumbers) {
  const std::vector<float> values = {-2.0f, -1.0f, -0.5f, -1e-30f, 0.0f, 1e-30f, 0.5f, 1.0f, 2.0f};
  for (std::size_t k = 1; k < values.size(); ++k) {
    EXPECT_LT(order_key(values[k - 1]), order_key(values[k]));
    EXPECT_GT(partner_key(values[k], 9), partner_key(values[k - 1], 3));
    EXPECT_GT(partner_key(values[k], 3), partner_key(values[k], 9)) << "the lower page first";
  }
  for (const float value : values) {
    EXPECT_EQ(value_of_key(order_key(value)), value);
    EXPECT_EQ(partner_similarity(partner_key(value, 77)), value);
    EXPECT_EQ(partner_page(partner_key(value, 77)), 77);
  }
  EXPECT_EQ(partner_key(-0.0f, 1), partner_key(0.0f, 1));
  EXPECT_EQ(order_key(-2.0f), kNoPairKey);
  EXPECT_EQ(order_key(2.0f), PairSums().least);
}

}  // namespace
}  // namespace kva
