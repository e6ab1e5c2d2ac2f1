// The CUDA similarity kernels against the CPU ones, at sizes around the tile and the warp. Skips without a
// device.
#include "kernels/similarity_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/device_buffer.h"

namespace kva {
namespace {

constexpr int kPartners = 3;
const std::vector<float> kThresholds = {0.1f, 0.5f, 0.8f};

// A device that is missing or without a driver is no failure: this test runs on every build with CUDA.
TEST(CudaDevice, CountIsAskedWithoutFailing) { EXPECT_GE(cuda_device_count(), 0); }

class CudaSimilarity : public ::testing::TestWithParam<std::tuple<int64_t, int64_t>> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
};

// One f32 vector a page, with the norms on the host.
struct HostPages {
  int64_t pages;
  int64_t values;
  int64_t stride;
  std::vector<float> centred;
  std::vector<float> norm, inverse, centred_squared, centred_inverse, mean_dot;
  float mean = 0.25f;

  PageNorms norms() const {
    return {norm.data(),
            inverse.data(),
            centred_squared.data(),
            centred_inverse.data(),
            mean_dot.data(),
            mean * mean * static_cast<float>(values)};
  }
};

HostPages make_pages(int64_t pages, int64_t values) {
  HostPages host{pages, values, values + 5, {}, {}, {}, {}, {}, {}};
  std::mt19937 random(static_cast<uint32_t>(pages * 31 + values));
  const auto draw = [&] { return static_cast<float>(random() >> 8) / 8388608.0f - 1.0f; };
  for (int64_t p = 0; p < pages; ++p) {
    double centred = 0.0;
    double plain = 0.0;
    double with_mean = 0.0;
    const float* earlier = p % 7 == 6 ? host.centred.data() + (p - 3) * host.stride : nullptr;
    std::vector<float> row;
    for (int64_t k = 0; k < host.stride; ++k)
      // Some pages repeat an earlier one, one is zero.
      row.push_back(p == 4 ? 0.0f : earlier != nullptr ? earlier[k] : draw());
    for (int64_t k = 0; k < values; ++k) {
      const double x = double{row[static_cast<std::size_t>(k)]};
      centred += x * x;
      plain += (x + double{host.mean}) * (x + double{host.mean});
      with_mean += x * double{host.mean};
    }
    host.centred.insert(host.centred.end(), row.begin(), row.end());
    host.norm.push_back(static_cast<float>(std::sqrt(plain)));
    host.inverse.push_back(static_cast<float>(1.0 / std::sqrt(plain)));
    host.centred_squared.push_back(static_cast<float>(centred));
    host.centred_inverse.push_back(centred > 0.0 ? static_cast<float>(1.0 / std::sqrt(centred)) : 0.0f);
    host.mean_dot.push_back(static_cast<float>(with_mean));
  }
  return host;
}

DeviceBuffer on_device(const std::vector<float>& values) {
  return DeviceBuffer::holding(std::span<const float>(values));
}

// [pages * pages] on the CPU, with nearly equal pairs computed from the pages as the kernels do.
std::vector<float> cpu_products(const HostPages& host, ProductSimilarity similarity) {
  std::vector<float> all, dots(static_cast<std::size_t>(host.pages));
  std::vector<float> cosine(dots.size()), centred(dots.size()), l2(dots.size()), distance(dots.size());
  const MatView<const float> pages(host.centred.data(), host.pages, host.values, host.stride);
  const PageNorms norms = host.norms();
  const std::vector<float> no_mean(static_cast<std::size_t>(host.values));
  for (int64_t i = 0; i < host.pages; ++i) {
    dot_tile(pages.row_range(i, 1), pages, {dots.data(), 1, host.pages});
    similarity_row(dots.data(), host.pages, norms, i, 0,
                   {cosine.data(), centred.data(), l2.data(), distance.data()});
    for (int64_t j = 0; j < host.pages; ++j) {
      const std::size_t k = static_cast<std::size_t>(j);
      const float squared = squared_distance(norms.centred_squared[i], norms.centred_squared[j], dots[k]);
      if (nearly_equal(norms.centred_squared[i], norms.centred_squared[j], squared)) {
        const PairProducts exact = pair_products({pages.row(i), no_mean.data(), 1, host.values, 1.0},
                                                 {pages.row(j), no_mean.data(), 1, host.values, 1.0});
        l2[k] = l2_similarity(static_cast<float>(std::sqrt(exact.squared_distance)), norms.norm[i],
                              norms.norm[j]);
      }
    }
    const std::vector<float>& wanted = similarity == ProductSimilarity::kCosine          ? cosine
                                       : similarity == ProductSimilarity::kCosineCentred ? centred
                                                                                         : l2;
    all.insert(all.end(), wanted.begin(), wanted.end());
  }
  return all;
}

// tolerance: how far a similarity may differ; 0 demands equal bits everywhere.
void expect_same(const DeviceComparison& device, const std::vector<float>& cpu, int64_t pages, float low,
                 double tolerance) {
  ValueTotals totals;
  std::vector<int64_t> histogram(kHistogramBins);
  const ValueRules rules{low, kThresholds};
  for (int64_t i = 0; i < pages; ++i)
    add_values(cpu.data() + i * pages + i + 1, pages - i - 1, rules, totals, histogram.data(), nullptr);
  ASSERT_EQ(device.totals.count, totals.count);
  EXPECT_NEAR(device.totals.mean(), totals.mean(), tolerance);
  EXPECT_NEAR(device.totals.standard_deviation(), totals.standard_deviation(), 2 * tolerance);
  EXPECT_NEAR(device.totals.min, totals.min, tolerance);
  EXPECT_NEAR(device.totals.max, totals.max, tolerance);
  // A value may cross a bound only where it lies within the tolerance of it.
  const auto near = [&](double bound) {
    return std::count_if(cpu.begin(), cpu.end(),
                         [&](float v) { return std::abs(double{v} - bound) <= tolerance; });
  };
  for (std::size_t t = 0; t < kThresholds.size(); ++t) {
    EXPECT_LE(std::abs(device.totals.over[t] - totals.over[t]),
              tolerance > 0 ? near(double{kThresholds[t]}) : 0);
  }
  int64_t moved = 0;
  for (std::size_t b = 0; b < histogram.size(); ++b) moved += std::abs(histogram[b] - device.histogram[b]);
  if (tolerance == 0.0) {
    EXPECT_EQ(moved, 0);
  } else {
    EXPECT_LE(moved, totals.count / 10 + 2);
  }
  ASSERT_EQ(device.partners.size(), static_cast<std::size_t>(pages * kPartners));
  for (int64_t i = 0; i < pages; ++i) {
    std::vector<DevicePartner> expected;
    for (int64_t j = 0; j < pages; ++j)
      if (j != i) expected.push_back({cpu[static_cast<std::size_t>(i * pages + j)], static_cast<int32_t>(j)});
    std::stable_sort(expected.begin(), expected.end(), [](const DevicePartner& a, const DevicePartner& b) {
      return a.similarity > b.similarity;
    });
    for (std::size_t k = 0; k < kPartners; ++k) {
      const DevicePartner& found = device.partners[static_cast<std::size_t>(i * kPartners) + k];
      if (k >= expected.size()) {
        EXPECT_EQ(found.page, -1);
        continue;
      }
      EXPECT_NEAR(found.similarity, expected[k].similarity, tolerance);
      if (tolerance == 0.0) {
        EXPECT_EQ(found.page, expected[k].page);
      }
    }
  }
}

TEST_P(CudaSimilarity, ProductsMatchTheCpu) {
  const auto [pages, values] = GetParam();
  const HostPages host = make_pages(pages, values);
  const DeviceBuffer centred = on_device(host.centred), norm = on_device(host.norm),
                     inverse = on_device(host.inverse), squared = on_device(host.centred_squared),
                     centred_inverse = on_device(host.centred_inverse), mean_dot = on_device(host.mean_dot);
  const DevicePages device{centred.as<float>(),
                           pages,
                           values,
                           host.stride,
                           {norm.as<float>(), inverse.as<float>(), squared.as<float>(),
                            centred_inverse.as<float>(), mean_dot.as<float>(), host.norms().mean_squared}};
  // An f32 sum of n terms is off by at most n * 2^-24 of the sum of magnitudes, on either side.
  const double tolerance = 2.0 * static_cast<double>(values) / 16777216.0 + 1e-6;
  for (const auto similarity : {ProductSimilarity::kCosine, ProductSimilarity::kCosineCentred})
    expect_same(compare_products_cuda(device, similarity, kThresholds, kPartners),
                cpu_products(host, similarity), pages, -1.0f, tolerance);
  // The distance of pairs that are not nearly equal is at least sqrt(1e-3) of the norms.
  expect_same(compare_products_cuda(device, ProductSimilarity::kL2, kThresholds, kPartners),
              cpu_products(host, ProductSimilarity::kL2), pages, -1.0f, tolerance / std::sqrt(1e-3));
}

TEST_P(CudaSimilarity, BitsMatchTheCpuExactly) {
  const auto [pages, bits] = GetParam();
  BitMatrix matrix(pages, bits);
  std::mt19937_64 random(static_cast<uint64_t>(pages * 131 + bits));
  const int64_t set_size = std::max<int64_t>(1, bits / 4);
  for (int64_t p = 0; p < pages; ++p) {
    std::vector<float> values;
    for (int64_t k = 0; k < bits; ++k) values.push_back(static_cast<float>(random() >> 44));
    std::vector<uint64_t> words(static_cast<std::size_t>(matrix.words()));
    pack_top_magnitudes(values, set_size, words);
    matrix.set_page(p, words);
  }
  const DeviceBuffer words = DeviceBuffer::holding(
      std::span<const uint64_t>(matrix.data(), static_cast<std::size_t>(matrix.words() * matrix.stride())));
  const DeviceBits device{words.as<uint64_t>(), pages, bits, matrix.stride()};
  for (const auto similarity : {BitSimilarity::kHamming, BitSimilarity::kJaccard}) {
    std::vector<float> cpu;
    for (int64_t i = 0; i < pages; ++i)
      for (int64_t j = 0; j < pages; ++j)
        cpu.push_back(
            similarity == BitSimilarity::kHamming
                ? hamming_similarity(differing_bits(matrix, i, matrix, j), static_cast<uint32_t>(bits))
                : jaccard_similarity(common_bits(matrix, i, matrix, j), static_cast<uint32_t>(set_size)));
    expect_same(compare_bits_cuda(device, similarity, set_size, kThresholds, kPartners), cpu, pages, 0.0f,
                0.0);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaSimilarity,
                         ::testing::Values(std::tuple{2, 1}, std::tuple{9, 3}, std::tuple{33, 64},
                                           std::tuple{65, 100}, std::tuple{1023, 65},
                                           std::tuple{1030, 1024}));

}  // namespace
}  // namespace kva
