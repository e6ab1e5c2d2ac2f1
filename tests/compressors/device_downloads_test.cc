// What comes to the host while a recipe codes pages on a device: no page.
#include <gtest/gtest.h>

#include <string>

#include "tests/compressors/compressed_cache.h"
#include "tests/kernels/lane_device.h"

namespace kva {
namespace {

constexpr CacheShape kShape{
    .layers = 2, .kv_heads = 1, .group = 1, .head_dim = 32, .page_tokens = 32, .type = DType::kF16};
constexpr int64_t kTokens = 192;

// Bytes brought here by the recipe alone, once `tokens` tokens are there.
int64_t downloaded(const std::string& recipe, int64_t tokens) {
  ThreadPool pool(2);
  const std::shared_ptr<DeviceOps> device = make_lane_device();
  CompressedCache c(recipe, pool, kShape, nullptr, 0, make_device_backend(device));
  const Projections source(c.shape, kTokens, 7);
  const SequenceId id = c.driver.add(source);
  int64_t of_recipe = 0;
  while (c.driver.cache.tokens(id) < tokens) {
    const Batch batch = c.driver.step({{id, kShape.page_tokens}});
    const int64_t before = lane_downloads(*device);
    c.after(batch);
    of_recipe += lane_downloads(*device) - before;
  }
  return of_recipe;
}

constexpr int64_t kPageBytes = int64_t{kShape.page_tokens} * kShape.head_dim * 2;
constexpr int64_t kGroups = int64_t{kShape.layers} * kShape.kv_heads * 2;

struct Case {
  const char* recipe;
  int64_t rank;  // at most
};

class DeviceDownloads : public testing::TestWithParam<Case> {};

TEST_P(DeviceDownloads, OfPagesBehindABasisIsLessThanOneOfThem) {
  const int64_t when_fitted = downloaded(GetParam().recipe, 128);
  const int64_t behind = downloaded(GetParam().recipe, kTokens) - when_fitted;
  // Two more pages of all cells: whether a number was refused, and two numbers of each group where its
  // residual is asked for.
  EXPECT_LE(behind, 2 * (8 + kGroups * 16));
  EXPECT_LT(behind, kPageBytes);
  // Of the fit, f64: vectors, singular values and lengths of the rows of all groups; and one word for each of
  // its pages.
  EXPECT_LE(when_fitted, kGroups * ((GetParam().rank + 1) * kShape.head_dim + 128) * 8 + 4 * 4);
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, DeviceDownloads,
    testing::Values(Case{"lowrank(rank=8, fit_tokens=128)", 8},
                    Case{"lowrank(rank=8, fit_tokens=128) | quant(bits=4, outliers=0.01)", 8},
                    Case{"lowrank(rank=8, fit_tokens=128) | quant(bits=4, rotate=true)", 8},
                    Case{"lowrank(rank=8, fit_tokens=128) | dense(fp8)", 8},
                    Case{"lowrank(rank=8, fit_tokens=128, refresh=1)", 8},
                    Case{"lowrank(energy=0.5, fit_tokens=128) | dense(f32)", 16},
                    Case{"lowrank(rank=12, layers=2, fit_tokens=128) | quant(bits=8)", 12},
                    Case{"lowrank(rank=8, method=randomized, fit_tokens=128)", 8}),
    [](const auto& test) { return std::to_string(test.index); });

// What the bound above is worth: a method that looks at numbers on the host.
TEST(DeviceDownloadsOfTheHost, ArePages) {
  EXPECT_GE(downloaded("dedup(cos=0.9)", kTokens), kTokens * kGroups * kShape.head_dim * 2);
}

}  // namespace
}  // namespace kva
