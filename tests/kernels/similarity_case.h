// Pairs of pages on a device (kernels/similarity_job.h) beside the CPU's functions: pages of few small
// numbers, whose products are exact in any order, so that every bit has to agree.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device_ops.h"
#include "kernels/random.h"

namespace kva {

// Numbers on a device for as long as it lives.
template <typename T>
class OnDevice {
 public:
  OnDevice(DeviceOps& device, std::span<const T> values) : device_(device), count_(values.size()) {
    data_ = static_cast<T*>(device.allocate(bytes()));
    EXPECT_NE(data_, nullptr);
    device.upload(data_, values.data(), bytes());
  }
  OnDevice(DeviceOps& device, std::size_t count, T value)
      : OnDevice(device, std::span<const T>(std::vector<T>(count, value))) {}
  ~OnDevice() { device_.free(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* data() const { return data_; }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    device_.download(values.data(), data_, bytes());
    return values;
  }

 private:
  int64_t bytes() const { return static_cast<int64_t>(count_ * sizeof(T)); }

  DeviceOps& device_;
  std::size_t count_;
  T* data_ = nullptr;
};

// Pages of `numbers` numbers with their norms; some repeat others, one is zeros. Their means are 0.25.
struct SmallPages {
  int64_t pages;
  int64_t numbers;
  std::vector<float> centred, means;
  std::vector<float> norm, inverse, squared, centred_inverse, mean_dot;
  std::vector<double> exact_norm, exact_centred;
  BitMatrix signs;

  PageNorms norms() const {
    return {norm.data(),     inverse.data(), squared.data(), centred_inverse.data(),
            mean_dot.data(), mean_squared(), kNearlyEqual};
  }
  float mean_squared() const { return static_cast<float>(numbers) / 16.0f; }
  CentredBlock block(int64_t page) const {
    return {centred.data() + page * numbers, means.data(), 1, numbers, 1.0};
  }
};

inline SmallPages small_pages(int64_t pages, int64_t numbers) {
  SmallPages made{pages, numbers, {}, std::vector<float>(static_cast<std::size_t>(numbers), 0.25f),
                  {},    {},      {}, {},
                  {},    {},      {}, BitMatrix(pages, numbers)};
  for (int64_t p = 0; p < pages; ++p) {
    SplitMix64 random(static_cast<uint64_t>(p % 11 == 10 ? p - 7 : p) + 1);
    std::vector<float> row;
    for (int64_t k = 0; k < numbers; ++k)
      row.push_back(p == 4 ? 0.0f : static_cast<float>(static_cast<int>(random.next() % 16) - 8) / 8.0f);
    made.centred.insert(made.centred.end(), row.begin(), row.end());
    std::vector<uint64_t> words(static_cast<std::size_t>(made.signs.words()));
    pack_signs(row, words);
    made.signs.set_page(p, words);
    const CentredBlock own = made.block(p);
    const PairProducts products = pair_products(own, own);
    const double norm = std::sqrt(products.dot), centred = std::sqrt(products.centred_dot);
    const auto inverse = [](double of) { return of > 0.0 ? static_cast<float>(1.0 / of) : 0.0f; };
    made.exact_norm.push_back(norm);
    made.exact_centred.push_back(centred);
    made.norm.push_back(static_cast<float>(norm));
    made.inverse.push_back(inverse(norm));
    made.squared.push_back(static_cast<float>(products.centred_dot));
    made.centred_inverse.push_back(inverse(centred));
    made.mean_dot.push_back(
        static_cast<float>((products.dot - products.centred_dot - double{made.mean_squared()}) / 2.0));
  }
  return made;
}

// [metric][pages * pages]: cosine, centred cosine and L2, from the pages where they nearly equal each other.
inline std::vector<std::vector<float>> product_similarities(const SmallPages& pages) {
  const auto count = static_cast<std::size_t>(pages.pages);
  std::vector<std::vector<float>> all(3);
  std::vector<float> rows[4], dots(count);
  for (auto& row : rows) row.resize(count);
  for (int64_t i = 0; i < pages.pages; ++i) {
    for (int64_t j = 0; j < pages.pages; ++j)
      dots[static_cast<std::size_t>(j)] =
          static_cast<float>(pair_products(pages.block(i), pages.block(j)).centred_dot);
    similarity_row(dots.data(), pages.pages, pages.norms(), i, 0,
                   {rows[0].data(), rows[1].data(), rows[2].data(), rows[3].data()});
    const auto a = static_cast<std::size_t>(i);
    for (std::size_t b = 0; b < count; ++b) {
      if (!nearly_equal(pages.squared[a], pages.squared[b],
                        squared_distance(pages.squared[a], pages.squared[b], dots[b])))
        continue;
      const PairProducts exact = pair_products(pages.block(i), pages.block(static_cast<int64_t>(b)));
      const auto cosine = [](double dot, double x, double y) {
        return x > 0.0 && y > 0.0 ? clamp_similarity(static_cast<float>(dot / x / y)) : 0.0f;
      };
      const double larger = std::max(pages.exact_norm[a], pages.exact_norm[b]);
      rows[0][b] = cosine(exact.dot, pages.exact_norm[a], pages.exact_norm[b]);
      rows[1][b] = cosine(exact.centred_dot, pages.exact_centred[a], pages.exact_centred[b]);
      rows[2][b] = clamp_similarity(static_cast<float>(1.0 - std::sqrt(exact.squared_distance) / larger));
    }
    for (std::size_t m = 0; m < 3; ++m) all[m].insert(all[m].end(), rows[m].begin(), rows[m].end());
  }
  return all;
}

// Items of all pairs of pages, in group 1 of 2.
inline std::vector<PairItem> items_of(int64_t pages) {
  const auto count = static_cast<int32_t>(pages);
  std::vector<PairItem> items;
  for (int32_t row = 0; row < count; row += kPairRows)
    for (int32_t column = 0; column < count; column += kPairColumns)
      items.push_back(
          {row, std::min(kPairRows, count - row), column, std::min(kPairColumns, count - column), 1, 1});
  return items;
}

inline void expect_totals(const PairSums& sums, const uint64_t* histogram, const std::vector<float>& values,
                          int64_t pages, float low, std::span<const float> thresholds) {
  ValueTotals totals;
  std::vector<int64_t> bins(kHistogramBins);
  for (int64_t i = 0; i < pages; ++i)
    add_values(values.data() + i * pages + i + 1, pages - i - 1, {low, thresholds}, totals, bins.data(),
               nullptr);
  EXPECT_EQ(static_cast<int64_t>(sums.count), totals.count);
  EXPECT_EQ(static_cast<int64_t>(sums.sum), totals.sum);
  const auto of_cpu = [](int64_t part) { return static_cast<uint64_t>(part); };
  EXPECT_EQ((sums.squares_high << 24) + sums.squares_low,
            (of_cpu(totals.squares_high) << 24) + of_cpu(totals.squares_low));
  for (std::size_t t = 0; t < thresholds.size(); ++t)
    EXPECT_EQ(static_cast<int64_t>(sums.over[t]), totals.over[t]);
  EXPECT_EQ(value_of_key(sums.least), totals.min);
  EXPECT_EQ(value_of_key(sums.largest), totals.max);
  for (std::size_t b = 0; b < bins.size(); ++b)
    ASSERT_EQ(static_cast<int64_t>(histogram[b]), bins[b]) << "bin " << b;
}

// Best of each page among later ones, resp. earlier ones.
inline void expect_bests(const std::vector<int32_t>& later, const std::vector<int32_t>& earlier,
                         std::size_t metric, const std::vector<float>& values, std::size_t pages) {
  for (std::size_t i = 0; i < pages; ++i) {
    float best_later = -2.0f, best_earlier = -2.0f;
    for (std::size_t j = 0; j < pages; ++j) {
      float& best = j > i ? best_later : best_earlier;
      if (j != i) best = std::max(best, values[std::min(i, j) * pages + std::max(i, j)]);
    }
    ASSERT_EQ(value_of_key(later[metric * pages + i]), best_later) << "page " << i;
    ASSERT_EQ(value_of_key(earlier[metric * pages + i]), best_earlier) << "page " << i;
  }
}

inline void expect_partners(const std::vector<uint64_t>& keys, int partners, const std::vector<float>& values,
                            std::size_t pages) {
  for (std::size_t i = 0; i < pages; ++i) {
    std::vector<uint64_t> expected;
    for (std::size_t j = 0; j < pages; ++j)
      if (j != i)
        expected.push_back(
            partner_key(values[std::min(i, j) * pages + std::max(i, j)], static_cast<int32_t>(j)));
    std::sort(expected.rbegin(), expected.rend());
    expected.resize(static_cast<std::size_t>(partners));
    for (std::size_t k = 0; k < expected.size(); ++k)
      ASSERT_EQ(keys[i * expected.size() + k], expected[k]) << "page " << i << ", partner " << k;
  }
}

// Small pages on a device, with all that jobs ask of them.
class PagesOnDevice {
 public:
  PagesOnDevice(DeviceOps& device, const SmallPages& host)
      : device_(device),
        numbers_(host.numbers),
        mean_squared_(host.mean_squared()),
        centred_(device, std::span<const float>(host.centred)),
        means_(device, std::span<const float>(host.means)),
        norm_(device, std::span<const float>(host.norm)),
        inverse_(device, std::span<const float>(host.inverse)),
        squared_(device, std::span<const float>(host.squared)),
        centred_inverse_(device, std::span<const float>(host.centred_inverse)),
        mean_dot_(device, std::span<const float>(host.mean_dot)),
        exact_norm_(device, std::span<const double>(host.exact_norm)),
        exact_centred_(device, std::span<const double>(host.exact_centred)) {}

  PageNorms norms() const {
    return {norm_.data(),     inverse_.data(), squared_.data(), centred_inverse_.data(),
            mean_dot_.data(), mean_squared_,   kNearlyEqual};
  }
  ExactPages exact() const {
    return {.values = centred_.data(),
            .heads = 1,
            .numbers = static_cast<int32_t>(numbers_),
            .channels = static_cast<int32_t>(numbers_),
            .means = means_.data(),
            .norm = exact_norm_.data(),
            .centred = exact_centred_.data()};
  }
  void multiply(int64_t row, int64_t rows, int64_t column, int64_t columns, float* out) const {
    device_.multiply({.x = {centred_.data() + row * numbers_, DType::kF32, rows, numbers_, numbers_},
                      .weights = {centred_.data() + column * numbers_, DType::kF32, columns, numbers_},
                      .out = {out, DType::kF32, rows, columns, columns}});
  }

 private:
  DeviceOps& device_;
  const int64_t numbers_;
  const float mean_squared_;
  const OnDevice<float> centred_, means_, norm_, inverse_, squared_, centred_inverse_, mean_dot_;
  const OnDevice<double> exact_norm_, exact_centred_;
};

// Runs jobs of one set of small pages and holds what comes out against the CPU's.
class PairsCase {
 public:
  PairsCase(DeviceOps& device, int64_t count, int64_t numbers)
      : device_(device),
        count_(count),
        pages_(static_cast<std::size_t>(count)),
        host_(small_pages(count, numbers)),
        there_(device, host_),
        item_list_(device, std::span<const PairItem>(items_of(count))),
        near_(device, pages_ * pages_ + 1, 0u) {
    job_.items = item_list_.data();
    job_.count = static_cast<int32_t>(items_of(count).size());
    job_.tile_stride = count;
    std::copy(thresholds_.begin(), thresholds_.end(), job_.thresholds);
    job_.threshold_count = static_cast<int32_t>(thresholds_.size());
    job_.norms = there_.norms();
    job_.exact = there_.exact();
    job_.near = near_.data() + 1;
    job_.near_count = near_.data();
  }

  void expect_products() {
    constexpr int kPartners = 3;
    const OnDevice<float> dots(device_, pages_ * pages_, 0.0f), joined(device_, pages_ * pages_, 1.0f);
    const OnDevice<uint64_t> partners(device_, pages_ * kPartners, uint64_t{0});
    there_.multiply(0, count_, 0, count_, dots.data());
    job_.tile = dots.data();
    job_.joined = joined.data();
    job_.partners = partners.data();
    job_.partner_count = kPartners;
    std::vector<int32_t> bins(pages_);
    for (std::size_t p = 0; p < pages_; ++p) bins[p] = static_cast<int32_t>(p * kHeatBins / pages_);
    const OnDevice<int32_t> heat_bins(device_, std::span<const int32_t>(bins));
    const OnDevice<uint64_t> heat(device_, 2 * kCells, uint64_t{0});
    job_.heat_bin = heat_bins.data();
    job_.heat_bins = kHeatBins;
    job_.heat_sums = heat.data();
    job_.heat_counts = heat.data() + kCells;
    const auto similarities = product_similarities(host_);
    run(PairKind::kProducts, similarities);
    expect_partners(partners.read(), kPartners, similarities[1], pages_);
    expect_heat(heat.read(), bins, similarities[1]);
    const auto sums = joined.read(), found = dots.read();
    for (std::size_t i = 0; i < pages_; ++i)
      for (std::size_t j = i + 1; j < pages_; ++j)
        ASSERT_EQ(sums[i * pages_ + j], 1.0f + found[i * pages_ + j]);
  }

  void expect_bits() {
    const BitMatrix& signs = host_.signs;
    const OnDevice<uint64_t> words(
        device_, std::span(signs.data(), static_cast<std::size_t>(signs.words() * signs.stride())));
    const OnDevice<uint32_t> counts(device_, pages_ * pages_, 0u);
    BitCountJob bits{.words = words.data(),
                     .pages_stride = signs.stride(),
                     .count = static_cast<int32_t>(signs.words()),
                     .rows = static_cast<int32_t>(count_),
                     .columns = static_cast<int32_t>(count_),
                     .counts = counts.data(),
                     .stride = count_};
    job_.tile = counts.data();
    job_.size = static_cast<uint32_t>(signs.bits());
    for (const bool common : {false, true}) {
      bits.common = common;
      device_.count_bits(bits);
      std::vector<std::vector<float>> expected(1);
      for (int64_t i = 0; i < count_; ++i)
        for (int64_t j = 0; j < count_; ++j)
          expected[0].push_back(common ? jaccard_similarity(common_bits(signs, i, signs, j), job_.size)
                                       : hamming_similarity(differing_bits(signs, i, signs, j), job_.size));
      run(common ? PairKind::kJaccard : PairKind::kHamming, expected);
    }
  }

 private:
  static constexpr int32_t kHeatBins = 2;
  static constexpr std::size_t kCells = 4;  // of kHeatBins x kHeatBins

  void run(PairKind kind, const std::vector<std::vector<float>>& expected) {
    const auto metrics = static_cast<std::size_t>(metrics_of(kind));
    const OnDevice<PairSums> sums(device_, 2 * metrics, PairSums());
    const OnDevice<uint64_t> histogram(device_, 2 * metrics * kHistogramBins, uint64_t{0});
    const OnDevice<int32_t> later(device_, metrics * pages_, kNoPairKey),
        earlier(device_, metrics * pages_, kNoPairKey);
    job_.kind = kind;
    job_.out = {.totals = sums.data(), .histogram = histogram.data(), .groups = 2, .pages = count_};
    job_.out.row_best[1] = later.data();
    job_.out.column_best[1] = earlier.data();
    device_.compare_pairs(job_);
    const auto found = sums.read();
    const auto bins = histogram.read();
    for (std::size_t m = 0; m < metrics; ++m) {
      SCOPED_TRACE(::testing::Message() << "metric " << m);
      EXPECT_EQ(found[2 * m].count, 0U) << "the other group";
      expect_totals(found[2 * m + 1], bins.data() + (2 * m + 1) * kHistogramBins, expected[m], count_,
                    kind == PairKind::kProducts ? -1.0f : 0.0f, thresholds_);
      expect_bests(later.read(), earlier.read(), m, expected[m], pages_);
    }
  }

  void expect_heat(const std::vector<uint64_t>& cells, const std::vector<int32_t>& bins,
                   const std::vector<float>& similarities) const {
    std::vector<uint64_t> expected(cells.size());
    for (std::size_t i = 0; i < pages_; ++i)
      for (std::size_t j = i + 1; j < pages_; ++j) {
        const std::size_t cell =
            static_cast<std::size_t>(bins[i]) * kHeatBins + static_cast<std::size_t>(bins[j]);
        expected[cell] +=
            static_cast<uint64_t>(static_cast<int64_t>(similarities[i * pages_ + j] * kFixedOne));
        ++expected[kCells + cell];
      }
    EXPECT_EQ(cells, expected);
  }

  DeviceOps& device_;
  const int64_t count_;
  const std::size_t pages_;
  const std::vector<float> thresholds_ = {0.1f, 0.5f, 0.8f};
  const SmallPages host_;
  const PagesOnDevice there_;
  const OnDevice<PairItem> item_list_;
  const OnDevice<uint32_t> near_;
  PairJob job_;
};

inline void expect_pairs_as_on_the_cpu(DeviceOps& device, int64_t count, int64_t numbers) {
  PairsCase(device, count, numbers).expect_products();
  PairsCase(device, count, numbers).expect_bits();
}

}  // namespace kva
