#include "compressors/subspace.h"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <numbers>

#include "compressors/subspace_parts.h"
#include "kernels/check.h"
#include "kernels/random.h"
#include "kernels/similarity.h"
#include "kernels/tile_product.h"

namespace kva {
namespace {

// A row-major matrix of f64, aligned so that BLAS sums in the same order wherever it lies.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {
    constexpr std::size_t kAlignment = 64;
    const auto bytes = static_cast<std::size_t>(rows * cols) * sizeof(double);
    data_.reset(
        static_cast<double*>(std::aligned_alloc(kAlignment, (bytes + kAlignment) / kAlignment * kAlignment)));
    if (!data_) throw std::bad_alloc();
    std::fill_n(data_.get(), rows * cols, 0.0);
  }
  explicit Matrix(MatView<const float> rows) : Matrix(rows.rows, rows.cols) {
    for (int64_t r = 0; r < rows_; ++r) std::copy_n(rows.row(r), cols_, row(r));
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  double* data() const { return data_.get(); }
  double* row(int64_t r) const { return data_.get() + r * cols_; }

 private:
  struct Free {
    void operator()(double* memory) const { std::free(memory); }
  };
  int64_t rows_;
  int64_t cols_;
  std::unique_ptr<double[], Free> data_;
};

// a b, or a bᵀ.
Matrix product(const Matrix& a, const Matrix& b, bool transpose_b = false) {
  Matrix out(a.rows(), transpose_b ? b.rows() : b.cols());
  cblas_dgemm(CblasRowMajor, CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(out.rows()), static_cast<blasint>(out.cols()),
              static_cast<blasint>(a.cols()), 1.0, a.data(), static_cast<blasint>(a.cols()), b.data(),
              static_cast<blasint>(b.cols()), 0.0, out.data(), static_cast<blasint>(out.cols()));
  return out;
}

// The lower triangle of xᵀx (of_columns) or of xxᵀ.
Matrix gram(const Matrix& x, bool of_columns) {
  Matrix out(of_columns ? x.cols() : x.rows(), of_columns ? x.cols() : x.rows());
  cblas_dsyrk(CblasRowMajor, CblasLower, of_columns ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(out.rows()), static_cast<blasint>(of_columns ? x.rows() : x.cols()), 1.0,
              x.data(), static_cast<blasint>(x.cols()), 0.0, out.data(), static_cast<blasint>(out.cols()));
  return out;
}

struct EigenPairs {
  std::vector<double> values;  // falling, none negative
  Matrix vectors;              // one a row
};

// Of a symmetric matrix, given as its lower triangle.
EigenPairs eigen(Matrix matrix) {
  const auto n = static_cast<lapack_int>(matrix.rows());
  // What dsyevd's documentation asks for, to be given aligned.
  const auto work_size = static_cast<lapack_int>(1 + 6 * n + 2 * n * n);
  const Matrix work(1, work_size);
  std::vector<lapack_int> integers(static_cast<std::size_t>(3 + 5 * n));
  std::vector<double> values(static_cast<std::size_t>(n));
  // LAPACK counts columns first: the lower triangle is its upper one, and its vectors are our rows.
  const lapack_int info =
      LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'U', n, matrix.data(), n, values.data(), work.data(),
                          work_size, integers.data(), static_cast<lapack_int>(integers.size()));
  KVA_CHECK(info == 0, "eigenvectors of finite numbers");
  std::reverse(values.begin(), values.end());
  for (double& value : values) value = std::max(value, 0.0);
  for (lapack_int i = 0; i < n / 2; ++i)
    std::swap_ranges(matrix.row(i), matrix.row(i) + n, matrix.row(n - 1 - i));
  return {std::move(values), std::move(matrix)};
}

// Orthonormal rows that span the given ones, of which there are no more than columns.
void orthonormalize(const Matrix& rows) {
  const auto count = static_cast<lapack_int>(rows.rows());
  const auto length = static_cast<lapack_int>(rows.cols());
  constexpr lapack_int kBlock = 64;
  const Matrix work(kBlock, count), factors(1, count);
  lapack_int info = LAPACKE_dgeqrf_work(LAPACK_COL_MAJOR, length, count, rows.data(), length, factors.data(),
                                        work.data(), kBlock * count);
  KVA_CHECK(info == 0, "a QR decomposition");
  info = LAPACKE_dorgqr_work(LAPACK_COL_MAJOR, length, count, count, rows.data(), length, factors.data(),
                             work.data(), kBlock * count);
  KVA_CHECK(info == 0, "the Q of a QR decomposition");
}

double squared_norm(const Matrix& x) {
  const auto count = static_cast<blasint>(x.rows() * x.cols());
  return cblas_ddot(count, x.data(), 1, x.data(), 1);
}

Matrix normal_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  SplitMix64 random(seed);
  Matrix out(rows, cols);
  const int64_t count = rows * cols;
  for (int64_t i = 0; i < count; i += 2) {
    // Box and Muller; 1 - uniform() is never 0.
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
    const double angle = 2.0 * std::numbers::pi * random.uniform();
    out.data()[i] = radius * std::cos(angle);
    if (i + 1 < count) out.data()[i + 1] = radius * std::sin(angle);
  }
  return out;
}

// Calls body(block, projection) for blocks of X's rows in f64, and for range · blockᵀ: nothing of X's size is
// held in f64.
template <class Body>
void for_projected_blocks(const Matrix& range, MatView<const float> rows, const Body& body) {
  constexpr int64_t kBlock = 256;
  for (int64_t first = 0; first < rows.rows; first += kBlock) {
    const Matrix block(rows.row_range(first, std::min(kBlock, rows.rows - first)));
    body(block, product(range, block, true));
  }
}

// range · Xᵀ X; and X's squared norm.
Matrix power_iteration(const Matrix& range, MatView<const float> rows, double& total) {
  Matrix out(range.rows(), range.cols());
  for_projected_blocks(range, rows, [&](const Matrix& block, const Matrix& projection) {
    total += squared_norm(block);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<blasint>(out.rows()),
                static_cast<blasint>(out.cols()), static_cast<blasint>(block.rows()), 1.0, projection.data(),
                static_cast<blasint>(projection.cols()), block.data(), static_cast<blasint>(block.cols()),
                1.0, out.data(), static_cast<blasint>(out.cols()));
  });
  return out;
}

// The lower triangle of (range · Xᵀ) (range · Xᵀ)ᵀ.
Matrix projected_gram(const Matrix& range, MatView<const float> rows) {
  Matrix out(range.rows(), range.rows());
  for_projected_blocks(range, rows, [&](const Matrix&, const Matrix& projection) {
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, static_cast<blasint>(out.rows()),
                static_cast<blasint>(projection.cols()), 1.0, projection.data(),
                static_cast<blasint>(projection.cols()), 1.0, out.data(), static_cast<blasint>(out.cols()));
  });
  return out;
}

// The first steps towards the range of X, in f32: what they round off lies 1e-7 beside the range, and the
// steps in f64 that follow shrink it as they shrink everything beside the range. They are most of the
// products, and in f32 cost half.
class RangeFinder {
 public:
  explicit RangeFinder(MatView<const float> rows)
      : rows_(rows.rows), cols_(rows.cols), scaled_(static_cast<std::size_t>(rows.rows * rows.cols)) {
    float largest = 0.0f;
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t i = 0; i < cols_; ++i) largest = std::max(largest, std::abs(rows.row(r)[i]));
    // To at most 1, so that squares stay within f32.
    const double scale = largest > 0.0f ? 1.0 / double{largest} : 0.0;
    for (int64_t r = 0; r < rows_; ++r) {
      float* to = scaled_.data() + r * cols_;
      for (int64_t i = 0; i < cols_; ++i) to[i] = static_cast<float>(rows.row(r)[i] * scale);
    }
  }

  // Orthonormal rows that span the range of so many directions, after power iterations.
  Matrix find(int64_t directions, int64_t iterations, uint64_t seed) const {
    Matrix range = times_scaled(narrow(normal_matrix(directions, rows_, seed)), directions);
    orthonormalize(range);
    for (int64_t i = 0; i < iterations; ++i) {
      const std::vector<float> narrowed = narrow(range);
      std::vector<float> projected(static_cast<std::size_t>(directions * rows_));
      dot_tile({narrowed.data(), directions, cols_}, {scaled_.data(), rows_, cols_},
               {projected.data(), directions, rows_});
      range = times_scaled(projected, directions);
      orthonormalize(range);
    }
    return range;
  }

 private:
  static std::vector<float> narrow(const Matrix& matrix) {
    return std::vector<float>(matrix.data(), matrix.data() + matrix.rows() * matrix.cols());
  }

  // left [directions, rows] · X, widened.
  Matrix times_scaled(const std::vector<float>& left, int64_t directions) const {
    std::vector<float> out(static_cast<std::size_t>(directions * cols_), 0.0f);
    tile_product_add({left.data(), directions, rows_}, {scaled_.data(), rows_, cols_},
                     {out.data(), directions, cols_});
    return Matrix(MatView<const float>(out.data(), directions, cols_));
  }

  int64_t rows_, cols_;
  std::vector<float> scaled_;
};

void check(MatView<const float> rows, SubspaceSize size) {
  KVA_CHECK(rows.rows > 0 && rows.cols > 0, "rows to fit a subspace to");
  KVA_CHECK(size.rank > 0 || (size.energy > 0.0 && size.energy <= 1.0), "a rank or an energy");
}

MatView<const double> first_rows(const Matrix& matrix, int64_t rows) {
  return {matrix.data(), rows, matrix.cols()};
}

}  // namespace

int64_t rank_of(std::span<const double> squares, double total, SubspaceSize size) {
  const auto count = std::ssize(squares);
  if (size.rank > 0) return std::min<int64_t>(size.rank, count);
  // What rounding loses of a sum counts as kept, or energy=1 could not be had.
  constexpr double kRounding = 1e-12;
  double kept = 0.0;
  for (int64_t r = 0; r < count; ++r) {
    kept += squares[static_cast<std::size_t>(r)];
    if (kept >= (size.energy - kRounding) * total) return r + 1;
  }
  return count + 1;
}

Subspace subspace_of(std::span<const double> squares, double total, MatView<const double> vectors) {
  Subspace result;
  result.rank = vectors.rows;
  result.basis.resize(static_cast<std::size_t>(vectors.rows * vectors.cols));
  double kept = 0.0;
  for (int64_t r = 0; r < vectors.rows; ++r) {
    const double* vector = vectors.row(r);
    const double* largest = std::max_element(vector, vector + vectors.cols,
                                             [](double a, double b) { return std::abs(a) < std::abs(b); });
    const double sign = *largest < 0.0 ? -1.0 : 1.0;
    for (int64_t i = 0; i < vectors.cols; ++i)
      result.basis[static_cast<std::size_t>(r * vectors.cols + i)] = static_cast<float>(sign * vector[i]);
    const double square = squares[static_cast<std::size_t>(r)];
    result.singular_values.push_back(std::sqrt(square));
    kept += square;
  }
  result.energy = total > 0.0 ? std::min(1.0, kept / total) : 1.0;
  return result;
}

Subspace exact_subspace(MatView<const float> rows, SubspaceSize size) {
  check(rows, size);
  const Matrix x(rows);
  const bool of_columns = x.cols() <= x.rows();
  EigenPairs found = eigen(gram(x, of_columns));
  const double total = squared_norm(x);
  const int64_t rank =
      std::min(rank_of(found.values, total, size), static_cast<int64_t>(found.values.size()));
  if (!of_columns) {
    // Right singular vectors are Xᵀ times the left ones; those of small singular values come out skewed.
    Matrix left(rank, x.rows());
    std::copy_n(found.vectors.data(), rank * x.rows(), left.data());
    found.vectors = product(left, x);
    orthonormalize(found.vectors);
  }
  return subspace_of(found.values, total, first_rows(found.vectors, rank));
}

Subspace randomized_subspace(MatView<const float> rows, SubspaceSize size, uint64_t seed) {
  check(rows, size);
  const int64_t most = std::min(rows.rows, rows.cols);
  const RangeFinder finder(rows);
  constexpr int64_t kFirstGuess = 32;  // of the rank, where an energy is asked for
  for (int64_t guess = size.rank > 0 ? size.rank : kFirstGuess;; guess *= 2) {
    const int64_t directions = std::min(most, guess + kSubspaceOversampling);
    Matrix range = finder.find(directions, kSubspacePowerIterations - 1, seed);
    double total = 0.0;
    range = power_iteration(range, rows, total);
    orthonormalize(range);
    const EigenPairs found = eigen(projected_gram(range, rows));
    const int64_t rank = rank_of(found.values, total, size);
    if (rank > guess && directions < most) continue;
    const Matrix vectors = product(found.vectors, range);
    return subspace_of(found.values, total, first_rows(vectors, std::min(rank, directions)));
  }
}

}  // namespace kva
