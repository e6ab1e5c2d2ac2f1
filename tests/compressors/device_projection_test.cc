// Coefficients on bases that are made where pages lie, in a device's memory, beside those of the codec on the
// host; and what of bases and pages is refused, in the same words.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "compressors/codecs/lowrank_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/device_basis.h"
#include "compressors/subspace.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"
#include "tests/runtime/kv/device_pair.h"

namespace kva {
namespace {

constexpr CacheShape kShape{.layers = 2, .group = 1, .head_dim = 16, .page_tokens = 8};
constexpr int64_t kTokens = 8;

// A cache on the device with the tokens of one sequence.
struct Filled {
  Filled(const std::shared_ptr<DeviceOps>& device, int64_t tokens, unsigned seed, ThreadPool& pool)
      : source(kShape, tokens, seed),
        driver(on_device(kShape.options(), device), kShape, pool),
        id(driver.add(source)) {
    driver.step({{id, tokens}});
  }
  const Projections source;
  CacheDriver driver;
  const SequenceId id;
};

class DeviceProjection : public testing::Test {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
  }
  static std::vector<float> page(const KvCache& cache, const PageAddress& at) {
    std::vector<float> rows(kTokens * kShape.head_dim);
    cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side,
                    MatView<float>(rows.data(), kTokens, kShape.head_dim));
    return rows;
  }
  // The best of so many dimensions for rows.
  static std::shared_ptr<const LowRankBasis> basis_of(const KvCache& cache, const std::vector<float>& rows,
                                                      int64_t width, int64_t rank, int64_t cells) {
    const Subspace found =
        exact_subspace(MatView<const float>(rows.data(), std::ssize(rows) / width, width), {.rank = rank});
    return std::make_shared<const LowRankBasis>(
        cache.side_memory(), MatView<const float>(found.basis.data(), found.rank, width), cells);
  }
  // What the codec reads back of what it makes of rows.
  static std::vector<float> through(const SideCodec& codec, const std::vector<float>& rows, int64_t width) {
    const int64_t tokens = std::ssize(rows) / width;
    std::vector<std::byte> payload(static_cast<std::size_t>(codec.bytes(tokens, width)));
    codec.encode({rows.data(), tokens, width}, {}, payload.data());
    std::vector<float> read(rows.size()),
        scratch(static_cast<std::size_t>(codec.decode_scratch(tokens, width)));
    codec.decode({.payload = payload.data()}, scratch.data(), {read.data(), tokens, width});
    return read;
  }
  static double largest(const std::vector<float>& values) {
    double most = 0.0;
    for (const float value : values) most = std::max(most, std::abs(double{value}));
    return most;
  }

  std::shared_ptr<DeviceOps> device = device_under_test();
  ThreadPool pool{2};
};

// Two coefficients of a row x, each a sum of n products in some order, differ by at most 2 n 2^-24 |x| from
// each other; made of `rank` of them, numbers by that times the root of the rank. What stores them then may
// round to the neighbour: `step` of the largest.
struct Inner {
  std::shared_ptr<const SideCodec> codec;
  double step;
};

TEST_F(DeviceProjection, CoefficientsAreTheCodecs) {
  for (const int64_t rank : {1, 5, 8, 16})
    for (const Inner& inner : {Inner{make_dense_codec(DType::kF32), 0.0},
                               {make_dense_codec(DType::kF16), 0x1p-10},
                               {make_dense_codec(DType::kBF16), 0x1p-7},
                               {make_quant_codec({.bits = 8}), 2.0 / 255}}) {
      Filled filled(device, 17, 3, pool);
      KvCache& cache = filled.driver.cache;
      const SequenceId id = filled.id;
      Plan plan;
      std::vector<std::vector<float>> expected;
      for (int64_t p = 0; p < 2; ++p)
        for (const Side side : {Side::kKey, Side::kValue}) {
          const PageAddress at{id, 1, 1, p, side};
          const auto rows = page(cache, at);
          const auto codec = basis_of(cache, rows, kShape.head_dim, rank, 1)->codec(inner.codec);
          expected.push_back(through(*codec, rows, kShape.head_dim));
          plan.edits.push_back({.at = at, .new_side = static_cast<int>(plan.sides.size())});
          plan.sides.push_back({.codec = codec,
                                .lane = side == Side::kKey ? Lane::kKeys : Lane::kValues,
                                .tokens = kTokens,
                                .width = kShape.head_dim,
                                .sources = {{cache.page(at).side, 0, kTokens}}});
          ASSERT_TRUE(cache.codes_itself(*codec, plan.sides.back().sources));
        }
      cache.apply(plan);
      expect_honest(cache);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto found = page(cache, plan.edits[i].at);
        const double length = 4.0 * largest(expected[i]);  // of a row of 16
        const double within =
            std::sqrt(static_cast<double>(rank)) * (2.0 * kShape.head_dim * 0x1p-24 + inner.step) * length;
        for (std::size_t n = 0; n < found.size(); ++n)
          ASSERT_NEAR(found[n], expected[i][n], within)
              << inner.codec->name() << " rank " << rank << ", " << n;
      }
    }
}

// A basis of the cells of two layers: coefficients once, read by each cell.
TEST_F(DeviceProjection, CellsSideBySideShareCoefficients) {
  Filled filled(device, 17, 4, pool);
  KvCache& cache = filled.driver.cache;
  const SequenceId id = filled.id;
  std::vector<PageAddress> cells;
  for (int layer = 0; layer < 2; ++layer)
    for (int head = 0; head < 2; ++head) cells.push_back({id, layer, head, 1, Side::kValue});
  const int64_t joined = int64_t{4} * kShape.head_dim;
  std::vector<float> rows(kTokens * static_cast<std::size_t>(joined));
  std::vector<SideTokens> sources;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const auto of_cell = page(cache, cells[i]);
    for (int64_t t = 0; t < kTokens; ++t)
      std::copy_n(of_cell.begin() + t * kShape.head_dim, kShape.head_dim,
                  rows.begin() + t * joined + static_cast<int64_t>(i) * kShape.head_dim);
    // In two runs.
    const SideId side = cache.page(cells[i]).side;
    sources.push_back({side, 0, 3});
    sources.push_back({side, 3, 5});
  }
  const auto basis = basis_of(cache, rows, joined, 6, 4);
  std::vector<float> coefficients(kTokens * 6);
  basis->project({rows.data(), kTokens, joined}, {coefficients.data(), kTokens, 6});
  const std::vector<float> vectors = [&] {
    std::vector<float> read(static_cast<std::size_t>(6 * joined));
    const auto* stored = reinterpret_cast<const uint16_t*>(basis->stored().data());
    for (int64_t cell = 0; cell < 4; ++cell)
      for (int64_t r = 0; r < 6; ++r)
        for (int64_t c = 0; c < kShape.head_dim; ++c)
          read[static_cast<std::size_t>(r * joined + cell * kShape.head_dim + c)] =
              f16_value(stored[(cell * 6 + r) * kShape.head_dim + c]);
    return read;
  }();
  const auto inner = make_dense_codec(DType::kF32);
  ASSERT_TRUE(cache.codes_itself(*inner, sources, basis.get()));
  Plan plan;
  plan.sides.push_back({.codec = inner,
                        .lane = Lane::kShared,
                        .tokens = kTokens,
                        .width = 6,
                        .sources = sources,
                        .projection = basis});
  for (std::size_t i = 0; i < cells.size(); ++i) {
    plan.edits.push_back({.at = cells[i], .new_side = static_cast<int>(plan.sides.size())});
    plan.sides.push_back({.codec = basis->part_codec(static_cast<int64_t>(i)),
                          .lane = Lane::kValues,
                          .tokens = kTokens,
                          .width = kShape.head_dim,
                          .base = 0});
  }
  cache.apply(plan);
  const double within = std::sqrt(6.0) * 2.0 * static_cast<double>(joined) * 0x1p-24 * 8.0 * largest(rows);
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const auto found = page(cache, cells[i]);
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t c = 0; c < kShape.head_dim; ++c) {
        double expected = 0.0;
        for (int64_t r = 0; r < 6; ++r)
          expected +=
              double{coefficients[static_cast<std::size_t>(t * 6 + r)]} *
              vectors[static_cast<std::size_t>(r * joined + static_cast<int64_t>(i) * kShape.head_dim + c)];
        ASSERT_NEAR(found[static_cast<std::size_t>(t * kShape.head_dim + c)], expected, within) << i;
      }
  }
  cache.free_sequence(id);
  EXPECT_EQ(cache.ledger().payload, 0);
}

// ‖x - x Bᵀ B‖ / ‖x‖ of f32 sums: within their rounding of the host's.
TEST_F(DeviceProjection, ResidualsAreTheHosts) {
  Filled filled(device, 40, 6, pool);
  KvCache& cache = filled.driver.cache;
  const SequenceId id = filled.id;
  std::vector<Cell> all;
  for (int layer = 0; layer < 2; ++layer)
    for (int head = 0; head < 2; ++head)
      for (const Side side : {Side::kKey, Side::kValue}) all.push_back({layer, head, side});
  for (const int layers : {1, 2}) {
    const auto groups = basis_groups(all, layers, kShape.head_dim);
    std::vector<Basis> bases;
    std::vector<BasedRows> based;
    std::vector<double> expected;
    for (const BasisGroup& group : groups) {
      const auto first = read_group(cache, id, group, 0, 2), later = read_group(cache, id, group, 3, 2);
      bases.push_back(
          basis_of(cache, first, group.width, group.width / 4, static_cast<int64_t>(group.cells.size())));
      auto rows = rows_on_device(cache, id, group, 3, 2);
      ASSERT_TRUE(rows);
      EXPECT_EQ(rows->tokens(), 16);
      based.push_back({std::move(*rows), bases.back().get()});
      expected.push_back(
          bases.back()->relative_residual(MatView<const float>(later.data(), 16, group.width)));
    }
    const auto found = residuals_on_device(*cache.options().backend, based);
    ASSERT_TRUE(found);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_GT(expected[i], 0.1);
      EXPECT_NEAR((*found)[i], expected[i], 1e-6) << i;
    }
  }
}

// Of tokens that a basis is fitted on, and of those behind.
TEST_F(DeviceProjection, RefusesInTheHostsWords) {
  for (const char* recipe : {"lowrank(rank=4, fit_tokens=16) | dense(f32)",
                             "lowrank(rank=4, fit_tokens=16, method=randomized) | dense(f32)",
                             "lowrank(rank=8, layers=2, fit_tokens=16) | dense(f32)"})
    for (const int64_t token : {5, 18}) {
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        Projections source(kShape, 24, 5);
        source.v[static_cast<std::size_t>(token * kShape.kv_heads * kShape.head_dim + kShape.head_dim + 3)] =
            bad;
        const auto said = [&](std::shared_ptr<Backend> backend) {
          CompressedCache c(recipe, pool, kShape, nullptr, 0, std::move(backend));
          const SequenceId id = c.driver.add(source);
          return error_of([&] { c.feed(id, 24, 8); });
        };
        const std::string expected = said(nullptr);
        EXPECT_NE(expected, "no error") << recipe;
        EXPECT_EQ(said(make_device_backend(device)), expected) << recipe;
      }
    }
}

}  // namespace
}  // namespace kva
