#include "tests/compressors/format_conformance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/compressors/random_sample.h"

namespace kva {
namespace {

constexpr float kGuard = 12345.0f;
constexpr std::size_t kGuards = 32;

// Floats with guards behind them.
class Guarded {
 public:
  explicit Guarded(int64_t count) : count_(static_cast<std::size_t>(count)), values_(count_ + kGuards) {
    std::fill(values_.begin() + static_cast<std::ptrdiff_t>(count_), values_.end(), kGuard);
  }
  ~Guarded() {
    for (std::size_t i = count_; i < values_.size(); ++i) EXPECT_EQ(values_[i], kGuard) << "written past end";
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  float* data() { return values_.data(); }
  MatView<float> view(int64_t rows, int64_t cols) { return MatView<float>(data(), rows, cols); }

 private:
  std::size_t count_;
  std::vector<float> values_;
};

double dot(const float* a, const float* b, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += double{a[i]} * b[i];
  return sum;
}

// Sums of a few hundred products of numbers of this size, in f32.
double rounding(const std::vector<float>& values) {
  double most = 1.0;
  for (const float value : values) most = std::max(most, std::abs(double{value}));
  return most * 1e-4;
}

void expect_scores(const SideCodec& codec, const std::vector<std::byte>& payload,
                   const std::vector<float>& rows, int64_t n, int64_t tokens, int64_t width) {
  const std::vector<float> queries = normal_numbers(n * width, 77);
  const MatView<const float> of_queries(queries.data(), n, width);
  const SideData side{.payload = payload.data()};
  Guarded scratch(codec.scratch_values(n, tokens, width));
  Guarded coords(n * codec.coordinates(width));
  Guarded scores(n * tokens);
  MatView<const float> asked = of_queries;
  if (codec.has_coordinates()) {
    codec.project(of_queries, coords.view(n, codec.coordinates(width)));
    asked = coords.view(n, codec.coordinates(width));
  }
  codec.scores(asked, side, scratch.data(), scores.view(n, tokens));
  for (int64_t q = 0; q < n; ++q)
    for (int64_t t = 0; t < tokens; ++t)
      ASSERT_NEAR(scores.data()[q * tokens + t], dot(of_queries.row(q), rows.data() + t * width, width),
                  rounding(rows))
          << codec.name() << " query " << q << " of " << n << ", token " << t << " of " << tokens;
}

void expect_sums(const SideCodec& codec, const std::vector<std::byte>& payload,
                 const std::vector<float>& rows, int64_t n, int64_t tokens, int64_t width) {
  const std::vector<float> weights = normal_numbers(n * tokens, 78);
  const MatView<const float> of_weights(weights.data(), n, tokens);
  const SideData side{.payload = payload.data()};
  Guarded scratch(codec.scratch_values(n, tokens, width));
  Guarded coords(n * codec.coordinates(width));
  Guarded out(n * width);
  std::fill_n(out.data(), n * width, 0.5f);
  if (codec.has_coordinates()) {
    const auto sums = coords.view(n, codec.coordinates(width));
    std::fill_n(sums.data, sums.rows * sums.cols, 0.0f);
    codec.accumulate(of_weights, side, scratch.data(), sums);
    codec.lift(sums, out.view(n, width));
  } else {
    codec.accumulate(of_weights, side, scratch.data(), out.view(n, width));
  }
  for (int64_t q = 0; q < n; ++q)
    for (int64_t c = 0; c < width; ++c) {
      double expected = 0.5;
      for (int64_t t = 0; t < tokens; ++t)
        expected += double{of_weights.at(q, t)} * rows[static_cast<std::size_t>(t * width + c)];
      ASSERT_NEAR(out.data()[q * width + c], expected, rounding(rows))
          << codec.name() << " query " << q << " of " << n << ", channel " << c;
    }
}

}  // namespace

std::vector<std::byte> encoded(const SideCodec& codec, const std::vector<float>& rows, int64_t tokens,
                               int64_t width) {
  const auto bytes = static_cast<std::size_t>(codec.bytes(tokens, width));
  std::vector<std::byte> payload(bytes + kGuards, std::byte{0xa5});
  codec.encode(MatView<const float>(rows.data(), tokens, width), {}, payload.data());
  for (std::size_t i = bytes; i < payload.size(); ++i) EXPECT_EQ(payload[i], std::byte{0xa5});
  payload.resize(bytes);
  return payload;
}

std::vector<float> decoded(const SideCodec& codec, const std::vector<std::byte>& payload, int64_t tokens,
                           int64_t width) {
  Guarded scratch(codec.decode_scratch(tokens, width));
  Guarded rows(tokens * width);
  codec.decode({.payload = payload.data()}, scratch.data(), rows.view(tokens, width));
  return std::vector<float>(rows.data(), rows.data() + tokens * width);
}

void expect_conforming(const SideCodec& codec, int64_t width, uint64_t seed) {
  for (const int64_t tokens : {0, 1, 7, 64}) {
    SCOPED_TRACE(codec.name() + ", " + std::to_string(tokens) + " tokens of " + std::to_string(width));
    const std::vector<float> rows = normal_numbers(tokens * width, seed);
    const auto payload = encoded(codec, rows, tokens, width);
    EXPECT_EQ(payload, encoded(codec, rows, tokens, width));
    EXPECT_GE(codec.scale_bytes(tokens, width), 0);
    EXPECT_LE(codec.scale_bytes(tokens, width), codec.bytes(tokens, width));
    // The store keeps room for scratch_values() alone, whatever is read.
    EXPECT_LE(codec.decode_scratch(tokens, width), codec.scratch_values(kMaxCodecQueries, tokens, width));
    const auto read = decoded(codec, payload, tokens, width);
    for (const int64_t queries : {1, 3, 16}) {
      expect_scores(codec, payload, read, queries, tokens, width);
      expect_sums(codec, payload, read, queries, tokens, width);
    }
  }
}

}  // namespace kva
