// CUDA's comparison of pages against the CPU's, at sizes around the tile and the warp. Skips without a
// device.
#include "kernels/similarity_cuda.h"

#include <gtest/gtest.h>

#include "kernels/device_buffer.h"
#include "kernels/device_ops_cuda.h"
#include "tests/kernels/sharing_case.h"
#include "tests/kernels/similarity_case.h"

namespace kva {
namespace {

// A device that is missing or without a driver is no failure: this test runs on every build with CUDA.
TEST(CudaDevice, CountIsAskedWithoutFailing) { EXPECT_GE(cuda_device_count(), 0); }

TEST(CudaSimilarity, FindsWhatTheCpuFinds) {
  std::string why_not;
  const auto device = make_cuda_device(&why_not);
  if (!device) GTEST_SKIP() << why_not;
  for (const auto& [pages, numbers] : {std::pair{1, 3},
                                       {2, 1},
                                       {9, 3},
                                       {33, 64},
                                       {65, 100},
                                       {130, 65},
                                       {300, 32},
                                       {1023, 65},
                                       {1030, 1024}}) {
    SCOPED_TRACE(::testing::Message() << pages << " pages of " << numbers);
    expect_pairs_as_on_the_cpu(*device, pages, numbers);
    expect_cover_as_on_the_cpu(*device, pages, numbers);
  }
}

TEST(CudaSimilarity, FindsExactDuplicates) {
  std::string why_not;
  const auto device = make_cuda_device(&why_not);
  if (!device) GTEST_SKIP() << why_not;
  for (const int64_t groups : {1, 2, 9, 33, 65, 5000})
    for (const int64_t bytes : {2, 10, 128}) expect_duplicates_as_on_the_cpu(*device, groups, bytes);
}

}  // namespace
}  // namespace kva
