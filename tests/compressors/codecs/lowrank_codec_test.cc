#include "compressors/codecs/lowrank_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "compressors/subspace.h"
#include "runtime/error.h"
#include "tests/compressors/random_sample.h"
#include "tests/compressors/relative_error.h"
#include "tests/error_of.h"

namespace kva {
namespace {

MatView<const float> view(const std::vector<float>& values, int64_t cols) {
  return {values.data(), static_cast<int64_t>(values.size()) / cols, cols};
}

// Rows of f32 backwards; queries and sums are in that order too.
class BackwardsCodec : public SideCodec {
 public:
  std::string name() const override { return "backwards"; }
  int64_t bytes(int64_t tokens, int64_t width) const override { return tokens * width * 4; }
  void encode(MatView<const float> rows, const SideData& base, std::byte* payload) const override {
    std::vector<float> turned(static_cast<std::size_t>(rows.rows * rows.cols));
    const MatView<float> to(turned.data(), rows.rows, rows.cols);
    project(rows, to);
    stored_->encode(to, base, payload);
  }
  void decode(const SideData& side, float* scratch, MatView<float> rows) const override {
    stored_->decode(side, scratch, rows);
    for (int64_t r = 0; r < rows.rows; ++r) std::reverse(rows.row(r), rows.row(r) + rows.cols);
  }
  void scores(MatView<const float> queries, const SideData& side, float* scratch,
              MatView<float> scores) const override {
    stored_->scores(queries, side, scratch, scores);
  }
  void accumulate(MatView<const float> weights, const SideData& side, float* scratch,
                  MatView<float> out) const override {
    stored_->accumulate(weights, side, scratch, out);
  }
  bool has_coordinates() const override { return true; }
  void project(MatView<const float> queries, MatView<float> coords) const override {
    for (int64_t r = 0; r < queries.rows; ++r)
      std::reverse_copy(queries.row(r), queries.row(r) + queries.cols, coords.row(r));
  }
  void lift(MatView<const float> coords, MatView<float> out) const override {
    for (int64_t r = 0; r < coords.rows; ++r)
      for (int64_t c = 0; c < coords.cols; ++c) out.at(r, c) += coords.at(r, coords.cols - 1 - c);
  }

 private:
  std::shared_ptr<const SideCodec> stored_ = make_dense_codec(DType::kF32);
};

struct Bases {
  std::shared_ptr<Backend> backend = make_cpu_backend();
  std::shared_ptr<SideMemory> memory = std::make_shared<SideMemory>(backend);

  std::shared_ptr<const LowRankBasis> make(const std::vector<float>& vectors, int64_t rank,
                                           int64_t cells = 1) {
    return std::make_shared<const LowRankBasis>(
        memory, view(vectors, static_cast<int64_t>(vectors.size()) / rank), cells);
  }
  std::shared_ptr<const LowRankBasis> fitted(const std::vector<float>& rows, int64_t width, int64_t rank,
                                             int64_t cells = 1) {
    return make(exact_subspace(view(rows, width), {.rank = rank}).basis, rank, cells);
  }
};

std::vector<float> decoded(const SideCodec& codec, const SideData& side, int64_t tokens, int64_t width,
                           int64_t scratch) {
  std::vector<float> rows(static_cast<std::size_t>(tokens * width)), room(static_cast<std::size_t>(scratch));
  codec.decode(side, room.data(), MatView<float>(rows.data(), tokens, width));
  return rows;
}

TEST(LowRankCodec, OneDimensionByHand) {
  Bases bases;
  // B = (0.6, 0.8) is (0.60009765625, 0.7998046875) in f16.
  const auto basis = bases.make({0.6f, 0.8f}, 1);
  EXPECT_EQ(basis->bytes(), 2 * 2);
  EXPECT_EQ(bases.memory->held_bytes(), bases.backend->allocated_bytes());
  const auto codec = basis->codec(make_dense_codec(DType::kF16));
  EXPECT_EQ(codec->name(), "lowrank(rank=1) | dense(f16)");
  EXPECT_EQ(codec->bytes(4, 2), 4 * 2);
  EXPECT_EQ(codec->coordinates(2), 1);
  // Multiples of (3, 4) by 1, 2, -1, and a token at a right angle, of which nothing is left.
  const std::vector<float> rows{3, 4, 6, 8, -3, -4, 4, -3};
  std::vector<std::byte> payload(8);
  codec->encode(view(rows, 2), {}, payload.data());
  std::vector<float> coefficients(4);
  to_f32(payload.data(), DType::kF16, coefficients.data(), 4);
  // c = x·B / B·B = 5.0000 and its multiples; (4, -3)·B = 0.0009765625.
  EXPECT_NEAR(coefficients[0], 5.0, 5 * 0x1p-11);
  EXPECT_NEAR(coefficients[1], 10.0, 10 * 0x1p-11);
  EXPECT_NEAR(coefficients[2], -5.0, 5 * 0x1p-11);
  EXPECT_NEAR(coefficients[3], 0.0009765625, 1e-6);
  const auto back = decoded(*codec, {payload.data()}, 4, 2, codec->decode_scratch(4, 2));
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(back[i], rows[i], std::abs(rows[i]) * 0x1p-10) << i;
  EXPECT_NEAR(back[6], 0.0, 1e-3);
  EXPECT_NEAR(basis->relative_residual(view({4, -3}, 2)), 1.0, 1e-6);
  EXPECT_NEAR(basis->relative_residual(view({3, 4}, 2)), 0.0, 0x1p-10);
  EXPECT_EQ(basis->relative_residual(view({0, 0}, 2)), 0.0);
}

TEST(LowRankCodec, FullRankLosesOnlyTheRoundingOfItsCoefficients) {
  Bases bases;
  const auto rows = normal_numbers(64 * 64, 1);
  const auto basis = bases.fitted(rows, 64, 64);
  // The basis is off by 2^-11 from orthonormal; its square is what least squares leave of that.
  for (const auto& [type, bound] : {std::pair{DType::kF16, 1.01 * 0x1p-11}, {DType::kF32, 0x1p-18}}) {
    const auto codec = basis->codec(make_dense_codec(type));
    std::vector<std::byte> payload(static_cast<std::size_t>(codec->bytes(64, 64)));
    codec->encode(view(rows, 64), {}, payload.data());
    const auto back = decoded(*codec, {payload.data()}, 64, 64, codec->decode_scratch(64, 64));
    for (std::ptrdiff_t t = 0; t < 64; ++t) {
      const std::vector<float> expected(rows.begin() + t * 64, rows.begin() + (t + 1) * 64);
      const std::vector<float> got(back.begin() + t * 64, back.begin() + (t + 1) * 64);
      EXPECT_LT(relative_error(got, expected), bound) << t;
    }
  }
}

// What scores() and accumulate() give in the codec's coordinates is what the decoded page gives.
void expect_reads_as_decoded(const SideCodec& codec, const SideData& side, int64_t tokens, int64_t width,
                             int64_t base_scratch) {
  constexpr int64_t kQueries = 5;
  const int64_t coordinates = codec.coordinates(width);
  std::vector<float> scratch(
      static_cast<std::size_t>(codec.scratch_values(kQueries, tokens, width) + base_scratch));
  const auto page = decoded(codec, side, tokens, width, static_cast<int64_t>(scratch.size()));
  const auto queries = normal_numbers(kQueries * width, 2), weights = normal_numbers(kQueries * tokens, 3);
  std::vector<float> projected(static_cast<std::size_t>(kQueries * coordinates)),
      sums(projected.size(), 0.0f);
  std::vector<float> scores(static_cast<std::size_t>(kQueries * tokens)), out(queries.size(), 1.0f);
  codec.project(view(queries, width), MatView<float>(projected.data(), kQueries, coordinates));
  codec.scores(view(projected, coordinates), side, scratch.data(),
               MatView<float>(scores.data(), kQueries, tokens));
  codec.accumulate(view(weights, tokens), side, scratch.data(),
                   MatView<float>(sums.data(), kQueries, coordinates));
  codec.lift(view(sums, coordinates), MatView<float>(out.data(), kQueries, width));
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int64_t t = 0; t < tokens; ++t) {
      double expected = 0.0;
      for (int64_t i = 0; i < width; ++i)
        expected += double{queries[static_cast<std::size_t>(q * width + i)]} *
                    page[static_cast<std::size_t>(t * width + i)];
      EXPECT_NEAR(scores[static_cast<std::size_t>(q * tokens + t)], expected, 1e-4);
    }
    for (int64_t i = 0; i < width; ++i) {
      double expected = 1.0;
      for (int64_t t = 0; t < tokens; ++t)
        expected += double{weights[static_cast<std::size_t>(q * tokens + t)]} *
                    page[static_cast<std::size_t>(t * width + i)];
      EXPECT_NEAR(out[static_cast<std::size_t>(q * width + i)], expected, 1e-4);
    }
  }
}

TEST(LowRankCodec, ReadsInItsCoordinatesWhatItDecodes) {
  Bases bases;
  const auto rows = normal_numbers(30 * 24, 4);
  const auto basis = bases.fitted(rows, 24, 10);
  const auto backwards = std::make_shared<BackwardsCodec>();
  for (const auto& inner : std::vector<std::shared_ptr<const SideCodec>>{
           make_dense_codec(DType::kF16), make_dense_codec(DType::kBF16), backwards}) {
    const auto codec = basis->codec(inner);
    for (const int64_t tokens : {1, 7, 30}) {
      std::vector<std::byte> payload(static_cast<std::size_t>(codec->bytes(tokens, 24)));
      codec->encode(view(rows, 24).row_range(0, tokens), {}, payload.data());
      expect_reads_as_decoded(*codec, {payload.data()}, tokens, 24, 0);
    }
  }
}

TEST(LowRankCodec, CellsOfAGroupReadTheirPartOfSharedCoefficients) {
  Bases bases;
  const auto rows = normal_numbers(30 * 24, 5);
  const auto basis = bases.fitted(rows, 24, 10, 3);
  std::vector<float> coefficients(30 * 10);
  basis->coefficients(view(rows, 24), MatView<float>(coefficients.data(), 30, 10));
  double squares = 0.0;
  for (const auto& base_codec : std::vector<std::shared_ptr<const SideCodec>>{
           make_dense_codec(DType::kF32), std::make_shared<BackwardsCodec>()}) {
    std::vector<std::byte> payload(static_cast<std::size_t>(base_codec->bytes(30, 10)));
    base_codec->encode(view(coefficients, 10), {}, payload.data());
    squares = 0.0;
    for (int64_t cell = 0; cell < 3; ++cell) {
      const auto codec = basis->part_codec(cell);
      EXPECT_EQ(codec, basis->part_codec(cell));
      EXPECT_EQ(codec->bytes(30, 8), 0);
      const SideData side{.base = payload.data(), .base_codec = base_codec.get()};
      const int64_t base_scratch = base_codec->scratch_values(5, 30, 10);
      expect_reads_as_decoded(*codec, side, 30, 8, base_scratch);
      const auto page = decoded(*codec, side, 30, 8, codec->decode_scratch(30, 8) + base_scratch);
      for (int64_t t = 0; t < 30; ++t)
        for (int64_t i = 0; i < 8; ++i)
          squares += std::pow(double{page[static_cast<std::size_t>(t * 8 + i)]} -
                                  rows[static_cast<std::size_t>(t * 24 + cell * 8 + i)],
                              2);
    }
    // The three parts together leave what the joined rows leave.
    EXPECT_NEAR(std::sqrt(squares) / length_of(rows), basis->relative_residual(view(rows, 24)), 1e-4);
  }
}

TEST(LowRankCodec, TheSameInnerCodecGivesTheSameCodec) {
  Bases bases;
  std::shared_ptr<const SideCodec> codec;
  {
    const auto basis = bases.fitted(normal_numbers(16 * 8, 6), 8, 4);
    codec = basis->codec(make_dense_codec(DType::kF16));
    EXPECT_EQ(codec, basis->codec(make_dense_codec(DType::kF16)));
    EXPECT_NE(codec, basis->codec(make_dense_codec(DType::kF32)));
  }
  EXPECT_GT(bases.memory->held_bytes(), 0) << "the codec keeps its basis";
  codec.reset();
  EXPECT_EQ(bases.memory->held_bytes(), 0);
}

TEST(LowRankCodec, CoefficientsOutsideF16AreRefused) {
  Bases bases;
  const auto basis = bases.make({0.5f, 0.5f, 0.5f, 0.5f}, 1);
  const std::vector<float> rows(8, 60000.0f);
  std::vector<std::byte> payload(4);
  EXPECT_THAT(error_of([&] {
                basis->codec(make_dense_codec(DType::kF16))->encode(view(rows, 4), {}, payload.data());
              }),
              testing::HasSubstr("token 0: expected finite numbers with coefficients within f16"));
}

}  // namespace
}  // namespace kva
