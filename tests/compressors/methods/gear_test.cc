#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compressors/codecs/quant_codec.h"
#include "compressors/codecs/residual_codec.h"
#include "kernels/convert.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/format_conformance.h"

namespace kva {
namespace {

// Rows of a page as the codec reads them back.
std::vector<float> read_back(const SideCodec& codec, const std::vector<float>& rows, int64_t tokens,
                             int64_t width) {
  return decoded(codec, encoded(codec, rows, tokens, width), tokens, width);
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - b[i], 2);
  return sum;
}

// Token (0, 0.25, 2, 3) in 2-bit codes over [0, 3] with step 1: 0, 0, 2, 3. Token (0, 0.75, 2, 3): 0, 1,
// 2, 3. What is lost, (0, 0.25, 0, 0) and (0, -0.25, 0, 0), has rank 1: B = (0, 1, 0, 0), A = (0.25, -0.25).
TEST(Gear, AddsWhatCodesLoseAsWorkedOutByHand) {
  const auto codec = make_residual_codec(1, make_quant_codec({.bits = 2}));
  const std::vector<float> rows = {0, 0.25f, 2, 3, 0, 0.75f, 2, 3};
  // Scale, zero and a byte of codes a token; A and B.
  EXPECT_EQ(codec->bytes(2, 4), 2 * (2 + 2 + 1) + 2 * (2 + 4));
  EXPECT_EQ(codec->scale_bytes(2, 4), 2 * (2 + 2) + 2 * (2 + 4));
  const auto payload = encoded(*codec, rows, 2, 4);
  std::vector<float> factors(6);
  to_f32(payload.data(), DType::kF16, factors.data(), 6);
  EXPECT_EQ(factors, (std::vector<float>{0.25f, -0.25f, 0, 1, 0, 0}));
  EXPECT_EQ(decoded(*codec, payload, 2, 4), rows);
}

TEST(Gear, ConformsInEveryShape) {
  for (const int64_t rank : {1, 3, 64})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const int64_t width : {64, 20, 7})
        expect_conforming(
            *make_residual_codec(rank, make_quant_codec({.bits = 4, .axis = axis, .outliers = 0.02})), width,
            8);
}

// The best low-rank part of what is lost leaves the squares of the singular values behind the rank, which
// falls with the rank; with all of it nothing but f16's rounding is lost.
TEST(Gear, LosesLessTheHigherTheRank) {
  const auto rows = normal_numbers(64 * 16, 4);
  const auto plain = make_quant_codec({.bits = 2});
  double before = squared_error(rows, read_back(*plain, rows, 64, 16));
  const double all = before;
  for (const int64_t rank : {1, 2, 4, 8, 16}) {
    const double after = squared_error(rows, read_back(*make_residual_codec(rank, plain), rows, 64, 16));
    EXPECT_LT(after, before) << rank;
    before = after;
  }
  EXPECT_LT(before, 1e-5 * all);
}

TEST(Gear, KeepsZeroResidualsAndExactBytes) {
  ThreadPool pool(2);
  const CacheShape shape{.layers = 1, .kv_heads = 1, .head_dim = 16, .type = DType::kF16};
  CompressedCache c("gear(bits=4,rank=2,outliers=0.02)", pool, shape);
  const Projections source(shape, 32, 15);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 32, 8);
  const ByteLedger ledger = c.driver.cache.ledger();
  // Two pages of 16 tokens on both sides; 6 outliers of 256 numbers, each f16 with a place of 8 bits.
  EXPECT_EQ(ledger.payload, 4 * (16 * 16 / 2));
  EXPECT_EQ(ledger.scales, 4 * (16 * 4 + 6 * 3 + 2 * 2 * (16 + 16)));
  EXPECT_EQ(ledger.side, 0);
}

}  // namespace
}  // namespace kva
