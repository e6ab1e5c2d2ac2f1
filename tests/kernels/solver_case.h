// What a device makes of matrices and of rows on bases (kernels/solver_lanes.h, kernels/projection_lanes.h),
// against sums in f64 by loops: the same for every device.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <vector>

#include "kernels/device_ops.h"
#include "kernels/random.h"

namespace kva {

// Arrays on a device, until it goes.
class TestArrays {
 public:
  explicit TestArrays(DeviceOps& device) : device_(device) {}
  ~TestArrays() {
    for (void* memory : all_) device_.free(memory);
  }
  TestArrays(const TestArrays&) = delete;
  TestArrays& operator=(const TestArrays&) = delete;

  template <typename T>
  T* of(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    all_.push_back(device_.allocate(bytes));
    device_.upload(all_.back(), values.data(), bytes);
    return static_cast<T*>(all_.back());
  }
  // As many, all of them not numbers.
  template <typename T>
  T* poisoned(std::size_t count) {
    return of(std::vector<T>(count, std::numeric_limits<T>::quiet_NaN()));
  }
  template <typename T>
  std::vector<T> back(const T* memory, std::size_t count) {
    std::vector<T> values(count);
    device_.download(values.data(), memory, static_cast<int64_t>(count * sizeof(T)));
    return values;
  }

 private:
  DeviceOps& device_;
  std::vector<void*> all_;
};

template <typename T>
std::vector<T> random_values(std::size_t count, uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(2.0 * random.uniform() - 1.0);
  return values;
}

inline void expect_products(DeviceOps& device) {
  constexpr int64_t kRows = 5, kInner = 33, kCols = 18, kCount = 3;
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const int64_t gap : {0, 7}) {
        TestArrays memory(device);
        const int64_t a_stride = kRows * kInner + gap;
        const auto a = random_values<double>(kCount * a_stride, 1);
        const auto b = random_values<double>(kCount * kInner * kCols, 2);
        double* out = memory.poisoned<double>(kCount * kRows * kCols);
        device.multiply_matrices({.a = memory.of(a),
                                  .b = memory.of(b),
                                  .out = out,
                                  .rows = kRows,
                                  .inner = kInner,
                                  .cols = kCols,
                                  .transpose_a = transpose_a,
                                  .transpose_b = transpose_b,
                                  .factor = -1.5,
                                  .count = kCount,
                                  .a_stride = gap > 0 ? a_stride : 0});
        const auto found = memory.back(out, kCount * kRows * kCols);
        for (int64_t i = 0; i < kCount; ++i)
          for (int64_t r = 0; r < kRows; ++r)
            for (int64_t c = 0; c < kCols; ++c) {
              double sum = 0.0;
              for (int64_t k = 0; k < kInner; ++k)
                sum += a[static_cast<std::size_t>(i * a_stride +
                                                  (transpose_a ? k * kRows + r : r * kInner + k))] *
                       b[static_cast<std::size_t>(i * kInner * kCols +
                                                  (transpose_b ? c * kInner + k : k * kCols + c))];
              ASSERT_NEAR(found[static_cast<std::size_t>((i * kRows + r) * kCols + c)], -1.5 * sum, 1e-13)
                  << i << ", " << r << ", " << c;
            }
      }
}

// Rows that span what the first of them did, orthonormal; where rows depend on others, orthonormal still.
inline void expect_orthonormal_rows(DeviceOps& device) {
  struct Case {
    int64_t rows, length, count;
  };
  for (const Case& of : {Case{1, 1, 1}, {3, 40, 4}, {17, 17, 2}, {70, 96, 2}, {70, 96, 1}}) {
    const int64_t rows = of.rows, length = of.length, count = of.count;
    TestArrays memory(device);
    auto given = random_values<double>(static_cast<std::size_t>(count * rows * length), 3);
    const auto at = [&](int64_t i, int64_t r) { return (i * rows + r) * length; };
    // The second matrix's last row is its first, the third's rows are zeros.
    for (int64_t c = 0; c < length; ++c) {
      if (count > 1)
        given[static_cast<std::size_t>(at(1, rows - 1) + c)] = given[static_cast<std::size_t>(at(1, 0) + c)];
      for (int64_t r = 0; count > 2 && r < rows; ++r) given[static_cast<std::size_t>(at(2, r) + c)] = 0.0;
    }
    double* matrices = memory.of(given);
    device.orthonormalize({.matrices = matrices, .rows = rows, .length = length, .count = count});
    const auto found = memory.back(matrices, given.size());
    const auto dot = [&](const std::vector<double>& a, int64_t a_at, int64_t b_at) {
      double sum = 0.0;
      for (int64_t c = 0; c < length; ++c)
        sum += a[static_cast<std::size_t>(a_at + c)] * found[static_cast<std::size_t>(b_at + c)];
      return sum;
    };
    for (int64_t i = 0; i < count; ++i)
      for (int64_t r = 0; r < rows; ++r) {
        double inside = 0.0, whole = 0.0;
        for (int64_t s = 0; s < rows; ++s)
          ASSERT_NEAR(dot(found, at(i, r), at(i, s)), r == s ? 1.0 : 0.0, 1e-13)
              << i << ", " << r << ", " << s;
        for (int64_t s = 0; s <= r; ++s)
          inside += dot(given, at(i, r), at(i, s)) * dot(given, at(i, r), at(i, s));
        for (int64_t c = 0; c < length; ++c)
          whole +=
              given[static_cast<std::size_t>(at(i, r) + c)] * given[static_cast<std::size_t>(at(i, r) + c)];
        ASSERT_NEAR(inside, whole, 1e-12 * (1.0 + whole)) << i << ", " << r;
      }
  }
}

// M v = λ v of each, values ascending.
inline void expect_eigenvectors(DeviceOps& device) {
  for (const int64_t size : {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{64}})
    for (const int64_t count : {int64_t{1}, int64_t{5}}) {
      TestArrays memory(device);
      auto given = random_values<double>(static_cast<std::size_t>(count * size * size), 4);
      const auto at = [&](int64_t i, int64_t r, int64_t c) {
        return static_cast<std::size_t>((i * size + r) * size + c);
      };
      for (int64_t i = 0; i < count; ++i)
        for (int64_t r = 0; r < size; ++r)
          for (int64_t c = 0; c < r; ++c) given[at(i, r, c)] = given[at(i, c, r)];
      double* matrices = memory.of(given);
      double* values = memory.poisoned<double>(static_cast<std::size_t>(count * size));
      device.find_eigenvectors({.matrices = matrices, .values = values, .size = size, .count = count});
      const auto vectors = memory.back(matrices, given.size());
      const auto found = memory.back(values, static_cast<std::size_t>(count * size));
      for (int64_t i = 0; i < count; ++i)
        for (int64_t v = 0; v < size; ++v) {
          const double value = found[static_cast<std::size_t>(i * size + v)];
          if (v > 0) {
            ASSERT_LE(found[static_cast<std::size_t>(i * size + v - 1)], value);
          }
          double length = 0.0;
          for (int64_t r = 0; r < size; ++r) {
            double sum = 0.0;
            for (int64_t c = 0; c < size; ++c) sum += given[at(i, r, c)] * vectors[at(i, v, c)];
            ASSERT_NEAR(sum, value * vectors[at(i, v, r)], 1e-13 * static_cast<double>(size))
                << i << ", " << v;
            length += vectors[at(i, v, r)] * vectors[at(i, v, r)];
          }
          ASSERT_NEAR(length, 1.0, 1e-13 * static_cast<double>(size));
        }
    }
}

// Of each matrix, what SplitMix64 gives from its seed on.
inline void expect_normals(DeviceOps& device) {
  for (const int64_t numbers : {int64_t{1}, int64_t{2}, int64_t{501}}) {
    TestArrays memory(device);
    const std::vector<uint64_t> seeds = {5, 0, ~uint64_t{0}};
    double* out = memory.poisoned<double>(seeds.size() * static_cast<std::size_t>(numbers));
    device.draw_normals({.seeds = memory.of(seeds),
                         .numbers = numbers,
                         .count = static_cast<int64_t>(seeds.size()),
                         .out = out});
    const auto found = memory.back(out, seeds.size() * static_cast<std::size_t>(numbers));
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      SplitMix64 random(seeds[i]);
      for (int64_t n = 0; n < numbers; n += 2) {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
        const double angle = 2.0 * std::numbers::pi * random.uniform();
        const std::size_t at = i * static_cast<std::size_t>(numbers) + static_cast<std::size_t>(n);
        ASSERT_NEAR(found[at], radius * std::cos(angle), 1e-13);
        if (n + 1 < numbers) {
          ASSERT_NEAR(found[at + 1], radius * std::sin(angle), 1e-13);
        }
      }
    }
  }
}

// Dense rows of several cells, in memory in another order than they are joined in.
struct JoinedCase {
  SideKind kind;
  int32_t cells, width, tokens, count;

  int32_t joined() const { return cells * width; }
  int64_t row_bytes() const { return int64_t{width} * side_bits(kind) / 8; }
  int64_t rows() const { return int64_t{count} * tokens * cells; }

  std::vector<std::byte> bytes(uint64_t seed) const {
    std::vector<std::byte> stored(static_cast<std::size_t>(rows() * row_bytes()));
    const auto values = random_values<float>(static_cast<std::size_t>(rows() * width), seed);
    for (int64_t i = 0; i < rows() * width; ++i)
      put_dense(kind, stored.data(), i, values[static_cast<std::size_t>(i)]);
    return stored;
  }
  std::vector<const std::byte*> addresses(const std::byte* memory) const {
    std::vector<const std::byte*> found;
    for (int64_t i = 0; i < rows(); ++i) found.push_back(memory + (rows() - 1 - i) * row_bytes());
    return found;
  }
  // Column `column` of row `row` of all.
  double number(const std::vector<std::byte>& stored, int64_t row, int32_t column) const {
    const int64_t at = rows() - 1 - (row * cells + column / width);
    return double{dense_number(kind, stored.data(), at * width + column % width)};
  }
};

inline const JoinedCase kJoinedCases[] = {
    {SideKind::kF32, 1, 8, 1, 1},    {SideKind::kF16, 1, 64, 16, 3},  {SideKind::kBF16, 3, 80, 17, 2},
    {SideKind::kE4M3, 2, 24, 33, 1}, {SideKind::kF16, 5, 128, 15, 1},
};

inline void expect_widened_rows(DeviceOps& device) {
  for (const JoinedCase& of : kJoinedCases) {
    TestArrays memory(device);
    const auto stored = of.bytes(6);
    const auto rows = static_cast<std::size_t>(int64_t{of.count} * of.tokens);
    const auto joined = static_cast<std::size_t>(of.joined());
    double* out = memory.poisoned<double>(rows * joined);
    double* squares = memory.poisoned<double>(rows);
    device.widen_rows({.kind = of.kind,
                       .cells = of.cells,
                       .width = of.width,
                       .tokens = of.tokens,
                       .count = of.count,
                       .rows = memory.of(of.addresses(memory.of(stored))),
                       .out = out,
                       .squares = squares});
    const auto found = memory.back(out, rows * joined);
    const auto lengths = memory.back(squares, rows);
    for (std::size_t row = 0; row < rows; ++row) {
      double square = 0.0;
      for (std::size_t c = 0; c < joined; ++c) {
        const double expected = of.number(stored, static_cast<int64_t>(row), static_cast<int32_t>(c));
        ASSERT_EQ(found[row * joined + c], expected) << row << ", " << c;
        square += expected * expected;
      }
      ASSERT_NEAR(lengths[row], square, 1e-13 * (1.0 + square));
    }
  }
}

// Coefficients of the least squared error to within f32 sums, of a basis that is nearly orthonormal: its Gram
// matrix is I + E with |E| <= e, so that after the second pass an error of e² |x| stays.
inline void expect_projection(DeviceOps& device) {
  for (const JoinedCase& of : kJoinedCases)
    for (const int32_t rank : {1, 3, 8, 40}) {
      if (rank > of.joined()) continue;
      SCOPED_TRACE(testing::Message() << of.joined() << " numbers, rank " << rank);
      TestArrays memory(device);
      const auto stored = of.bytes(8);
      const auto joined = static_cast<std::size_t>(of.joined());
      const auto tokens = static_cast<std::size_t>(of.tokens), ranks = static_cast<std::size_t>(rank);
      // Vectors r: 1 at column r, and 2^-11 at the next.
      const auto vector = [&](int32_t r, int32_t column) {
        return column == r ? 1.0 : column == r + 1 ? 0x1p-11 : 0.0;
      };
      std::vector<uint16_t> basis(ranks * joined);
      for (int32_t cell = 0; cell < of.cells; ++cell)
        for (int32_t r = 0; r < rank; ++r)
          for (int32_t c = 0; c < of.width; ++c)
            basis[static_cast<std::size_t>((int64_t{cell} * rank + r) * of.width + c)] =
                f16_code(static_cast<float>(vector(r, cell * of.width + c)));
      std::vector<ProjectionSide> sides;
      sides.reserve(static_cast<std::size_t>(of.count));
      const std::byte* const* rows = memory.of(of.addresses(memory.of(stored)));
      for (int32_t i = 0; i < of.count; ++i)
        sides.push_back({.rows = rows + int64_t{i} * of.tokens * of.cells,
                         .basis = memory.of(basis),
                         .coefficients = memory.poisoned<float>(tokens * ranks),
                         .residual = memory.poisoned<float>(tokens * joined)});
      int32_t* refused = memory.of(std::vector<int32_t>{0});
      double* lengths = memory.poisoned<double>(2 * sides.size());
      device.project({.source_kind = of.kind,
                      .cells = of.cells,
                      .width = of.width,
                      .rank = rank,
                      .tokens = of.tokens,
                      .sides = memory.of(sides),
                      .count = of.count,
                      .lengths = lengths,
                      .refused = refused});
      EXPECT_EQ(memory.back(refused, 1)[0], 0);
      const auto squares = memory.back(lengths, 2 * sides.size());
      for (std::size_t i = 0; i < sides.size(); ++i) {
        const auto found = memory.back(sides[i].coefficients, tokens * ranks);
        double left = 0.0, whole = 0.0;
        for (std::size_t t = 0; t < tokens; ++t) {
          const auto x = [&](int32_t column) {
            return of.number(stored, static_cast<int64_t>(i * tokens + t), column);
          };
          // x Bᵀ, and what it leaves; then the coefficients of that on top.
          std::vector<double> first(ranks, 0.0), rest(joined, 0.0);
          for (int32_t r = 0; r < rank; ++r)
            for (int32_t c = 0; c < of.joined(); ++c)
              first[static_cast<std::size_t>(r)] += x(c) * vector(r, c);
          for (int32_t c = 0; c < of.joined(); ++c) {
            double& of_column = rest[static_cast<std::size_t>(c)] = x(c);
            whole += of_column * of_column;
            for (int32_t r = 0; r < rank; ++r) of_column -= first[static_cast<std::size_t>(r)] * vector(r, c);
            left += of_column * of_column;
          }
          for (int32_t r = 0; r < rank; ++r) {
            double expected = first[static_cast<std::size_t>(r)];
            for (int32_t c = 0; c < of.joined(); ++c)
              expected += rest[static_cast<std::size_t>(c)] * vector(r, c);
            // Sums of numbers below 1, of which two are not multiplied by 0.
            ASSERT_NEAR(found[t * ranks + static_cast<std::size_t>(r)], expected, 8 * 0x1p-24)
                << t << ", " << r;
          }
        }
        ASSERT_NEAR(squares[2 * i], left, 1e-6 * whole);
        ASSERT_NEAR(squares[2 * i + 1], whole, 1e-12 * whole);
      }
    }
}

inline void expect_refused_projection(DeviceOps& device) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 7e4f}) {
    TestArrays memory(device);
    std::vector<float> row(8, 1.0f);
    row[5] = bad;
    std::vector<uint16_t> basis(8, 0);
    basis[5] = f16_code(1.0f);
    const std::vector<const std::byte*> rows = {reinterpret_cast<const std::byte*>(memory.of(row))};
    const std::vector<ProjectionSide> sides = {{.rows = memory.of(rows),
                                                .basis = memory.of(basis),
                                                .coefficients = memory.poisoned<float>(1),
                                                .residual = memory.poisoned<float>(8)}};
    int32_t* refused = memory.of(std::vector<int32_t>{0});
    device.project({.source_kind = SideKind::kF32,
                    .cells = 1,
                    .width = 8,
                    .rank = 1,
                    .tokens = 1,
                    .sides = memory.of(sides),
                    .count = 1,
                    .refused = refused});
    EXPECT_EQ(memory.back(refused, 1)[0], 1) << bad;
  }
}

}  // namespace kva
