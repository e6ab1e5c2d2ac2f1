// Subspaces that are found on a device, beside those of LAPACK on the host.
#include "compressors/device_subspace.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/device_ops.h"
#include "kernels/dtype.h"
#include "tests/compressors/subspaces.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {
namespace {

class DeviceSubspace : public testing::Test {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
    backend = make_device_backend(device);
  }

  // Rows as f32 pages of 7 tokens and of `width` numbers a cell, somewhere on the device.
  JoinedRows placed(const std::vector<float>& rows, int64_t cols, int32_t cells = 1) {
    const int64_t tokens = std::ssize(rows) / cols, width = cols / cells;
    JoinedRows found{.kind = SideKind::kF32, .cells = cells, .width = static_cast<int32_t>(width)};
    std::vector<std::byte*> pages;
    for (int64_t first = 0; first < tokens; first += kPageTokens)
      for (int32_t cell = 0; cell < cells; ++cell) {
        const int64_t count = std::min(kPageTokens, tokens - first);
        std::vector<float> page;
        for (int64_t t = first; t < first + count; ++t)
          page.insert(page.end(), rows.begin() + t * cols + cell * width,
                      rows.begin() + t * cols + (cell + 1) * width);
        const auto bytes = std::ssize(page) * int64_t{sizeof(float)};
        memory.emplace_back(*backend, bytes, "a test");
        backend->upload(memory.back().data(), page.data(), bytes);
        pages.push_back(memory.back().data());
      }
    for (int64_t t = 0; t < tokens; ++t)
      for (int32_t cell = 0; cell < cells; ++cell)
        found.rows.push_back(pages[static_cast<std::size_t>(t / kPageTokens * cells + cell)] +
                             t % kPageTokens * width * int64_t{sizeof(float)});
    return found;
  }
  Subspace found(const std::vector<float>& rows, int64_t cols, SubspaceSize size, bool randomized,
                 int32_t cells = 1) {
    const DeviceFit fit{placed(rows, cols, cells), size, 3};
    return subspaces_on_device(*backend, {&fit, 1}, randomized)[0];
  }

  static constexpr int64_t kPageTokens = 7;
  std::shared_ptr<DeviceOps> device = device_under_test();
  std::shared_ptr<Backend> backend;
  std::vector<Buffer> memory;
};

// Both find the eigenvectors of the same matrix; each to within the eigensolver's rounding of its largest
// eigenvalue σ₁², n ε σ₁². A direction then turns by that over the gap to the next eigenvalue, and what of
// the basis is stored is f32.
void expect_alike(const Subspace& here, const Subspace& there, int64_t width) {
  ASSERT_EQ(there.rank, here.rank);
  expect_orthonormal(there, width);
  constexpr double kRounding = 0x1p-52;
  const double largest = here.singular_values[0];
  for (std::size_t i = 0; i < here.singular_values.size(); ++i)
    EXPECT_NEAR(there.singular_values[i] * there.singular_values[i],
                here.singular_values[i] * here.singular_values[i],
                8 * static_cast<double>(width) * kRounding * largest * largest)
        << i;
  EXPECT_NEAR(there.energy, here.energy, 1e-12);
  for (std::size_t i = 0; i + 1 < here.singular_values.size(); ++i) {
    const auto square = [&](std::size_t of) {
      return here.singular_values[of] * here.singular_values[of] / (largest * largest);
    };
    const double gap = std::min(square(i) - square(i + 1), i > 0 ? square(i - 1) - square(i) : 1.0);
    const double bound = 1e-7 + 16 * static_cast<double>(width) * kRounding / gap;
    if (bound > 0.1) break;
    const float* a = here.basis.data() + static_cast<int64_t>(i) * width;
    const float* b = there.basis.data() + static_cast<int64_t>(i) * width;
    EXPECT_GT(dot(a, b, width), 1.0 - bound * bound - 1e-6) << i;
  }
}

TEST_F(DeviceSubspace, IsTheExactOneOfTheHost) {
  struct Case {
    int64_t tokens, width;
    double fall;
  };
  // Tall, wide, square; a fall of 1e6 over the spectrum.
  for (const auto& [tokens, width, fall] :
       {Case{96, 32, 0.8}, {40, 64, 0.7}, {64, 64, 0.9}, {300, 16, 0.4}, {2, 24, 0.5}, {1, 8, 0.5}})
    for (const int64_t rank : {int64_t{1}, int64_t{5}, width}) {
      const auto rows = rows_with_spectrum(std::max(tokens, width), width, fall, 7);
      const std::vector<float> used(rows.begin(), rows.begin() + tokens * width);
      SCOPED_TRACE(testing::Message() << tokens << " x " << width << " rank " << rank);
      expect_alike(exact_subspace(view(used, width), {.rank = rank}),
                   found(used, width, {.rank = rank}, false), width);
    }
}

TEST_F(DeviceSubspace, AgreesWithNumPy) {
  for (const bool randomized : {false, true}) {
    const Subspace s = found(kTall, 3, {.rank = 3}, randomized);
    ASSERT_EQ(s.rank, 3);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(s.singular_values[i], kTallValues[i], 1e-12);
    for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(s.basis[i], kTallVectors[i], 1e-7) << i;
    EXPECT_NEAR(s.energy, 1.0, 1e-12);
  }
}

TEST_F(DeviceSubspace, EnergyTakesAsFewDimensionsAsOnTheHost) {
  for (const double energy : {0.01, 0.462, 0.463, 0.813, 0.814, 1.0})
    for (const bool randomized : {false, true})
      EXPECT_EQ(found(kTall, 3, {.energy = energy}, randomized).rank,
                exact_subspace(view(kTall, 3), {.energy = energy}).rank)
          << energy;
  // More directions than the first round has.
  const auto rows = rows_with_spectrum(120, 80, 0.98, 5);
  for (const double energy : {0.5, 0.95, 0.9999})
    EXPECT_NEAR(static_cast<double>(found(rows, 80, {.energy = energy}, true).rank),
                static_cast<double>(exact_subspace(view(rows, 80), {.energy = energy}).rank), 1)
        << energy;
}

TEST_F(DeviceSubspace, RandomizedFindsTheExactOneWithinTheStatedBound) {
  constexpr int64_t kTokens = 128, kWidth = 64;
  for (const double fall : {0.6, 0.8}) {
    const auto rows = rows_with_spectrum(kTokens, kWidth, fall, 2);
    for (const int64_t rank : {4, 16}) {
      const Subspace exact = exact_subspace(view(rows, kWidth), {.rank = rank});
      const Subspace there = found(rows, kWidth, {.rank = rank}, true);
      expect_orthonormal(there, kWidth);
      EXPECT_LT(sine_between(exact, there, kWidth), randomized_bound(kTokens, rank, fall) + 1e-5)
          << fall << " rank " << rank;
      // The same random numbers to the last bits, and thus what the host finds.
      const Subspace here = randomized_subspace(view(rows, kWidth), {.rank = rank}, 3);
      for (std::size_t i = 0; i < here.singular_values.size(); ++i)
        EXPECT_NEAR(there.singular_values[i], here.singular_values[i], 1e-5 * here.singular_values[0]);
    }
  }
}

// Beyond the host's f32 steps: a fall of 1e9 within the rank, whose last direction both methods still find.
TEST_F(DeviceSubspace, RandomizedFollowsAFallOfABillion) {
  constexpr int64_t kWidth = 24;
  const double fall = std::pow(1e-6, 1.0 / 7.0);
  const auto rows = rows_with_spectrum(64, kWidth, fall, 11);
  const Subspace exact = exact_subspace(view(rows, kWidth), {.rank = 8});
  const Subspace there = found(rows, kWidth, {.rank = 8}, true);
  ASSERT_EQ(there.rank, 8);
  for (std::size_t i = 0; i < 8; ++i)
    EXPECT_NEAR(there.singular_values[i] / exact.singular_values[i], 1.0, 1e-3) << i;
}

TEST_F(DeviceSubspace, EqualRowsHaveAnOrthonormalBasis) {
  for (const float value : {0.0f, 3.0f, 1e-40f, 3e38f})
    for (const int64_t tokens : {1, 5, 40}) {
      const std::vector<float> rows(static_cast<std::size_t>(tokens * 12), value);
      for (const bool randomized : {false, true}) {
        const Subspace s = found(rows, 12, {.rank = 6}, randomized);
        EXPECT_EQ(s.rank, std::min<int64_t>(6, tokens));
        expect_orthonormal(s, 12);
      }
      EXPECT_EQ(found(rows, 12, {.energy = 1.0}, false).rank, 1) << value;
    }
}

// Cells side by side, several fits in one batch and of several shapes, one of them not finite.
TEST_F(DeviceSubspace, EachOfMany) {
  std::vector<DeviceFit> fits;
  std::vector<std::vector<float>> rows;
  std::vector<int64_t> widths;
  for (unsigned i = 0; i < 9; ++i) {
    const int64_t width = i % 3 == 0 ? 24 : 16;
    rows.push_back(rows_with_spectrum(30, width, 0.75, 20 + i));
    if (i == 4) rows.back()[77] = std::numeric_limits<float>::quiet_NaN();
    fits.push_back({placed(rows.back(), width, i % 3 == 0 ? 3 : 2), {.rank = 4}, i});
    widths.push_back(width);
  }
  for (const bool randomized : {false, true}) {
    const auto together = subspaces_on_device(*backend, fits, randomized);
    ASSERT_EQ(together.size(), fits.size());
    for (std::size_t i = 0; i < fits.size(); ++i) {
      if (i == 4) {
        EXPECT_EQ(together[i].rank, 0);
        continue;
      }
      const Subspace exact = exact_subspace(view(rows[i], widths[i]), {.rank = 4});
      EXPECT_LT(sine_between(exact, together[i], widths[i]), randomized ? 1e-2 : 1e-6) << i;
      const auto alone = subspaces_on_device(*backend, {&fits[i], 1}, randomized);
      EXPECT_LT(sine_between(alone[0], together[i], widths[i]), 1e-6) << i;
    }
  }
  EXPECT_TRUE(subspaces_on_device(*backend, {}, true).empty());
}

// Nothing stays behind.
TEST_F(DeviceSubspace, GivesItsMemoryBack) {
  const auto rows = rows_with_spectrum(60, 16, 0.8, 1);
  const DeviceFit fit{placed(rows, 16), {.rank = 3}, 1};
  const int64_t before = backend->allocated_bytes();
  for (const bool randomized : {false, true}) (void)subspaces_on_device(*backend, {&fit, 1}, randomized);
  EXPECT_EQ(backend->allocated_bytes(), before);
  EXPECT_GT(backend->peak_bytes(), before);
}

}  // namespace
}  // namespace kva
