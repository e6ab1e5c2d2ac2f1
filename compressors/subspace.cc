#include "compressors/subspace.h"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <numbers>

#include "kernels/check.h"
#include "kernels/random.h"

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
  double sum = 0.0;
  for (int64_t i = 0; i < x.rows() * x.cols(); ++i) sum += x.data()[i] * x.data()[i];
  return sum;
}

// How many of the falling squared singular values the size asks for; one more than there are where their sum
// does not hold the energy.
int64_t rank_of(const std::vector<double>& squares, double total, SubspaceSize size) {
  const auto count = static_cast<int64_t>(squares.size());
  if (size.rank > 0) return std::min(size.rank, count);
  // What rounding loses of a sum counts as kept, or energy=1 could not be had.
  constexpr double kRounding = 1e-12;
  double kept = 0.0;
  for (int64_t r = 0; r < count; ++r) {
    kept += squares[static_cast<std::size_t>(r)];
    if (kept >= (size.energy - kRounding) * total) return r + 1;
  }
  return count + 1;
}

// vectors: orthonormal, one a row, at least `rank` of them.
Subspace subspace_of(const std::vector<double>& squares, double total, const Matrix& vectors, int64_t rank) {
  Subspace result;
  result.rank = rank;
  result.basis.resize(static_cast<std::size_t>(rank * vectors.cols()));
  double kept = 0.0;
  for (int64_t r = 0; r < rank; ++r) {
    const double* vector = vectors.row(r);
    const double* largest = std::max_element(vector, vector + vectors.cols(),
                                             [](double a, double b) { return std::abs(a) < std::abs(b); });
    const double sign = *largest < 0.0 ? -1.0 : 1.0;
    for (int64_t i = 0; i < vectors.cols(); ++i)
      result.basis[static_cast<std::size_t>(r * vectors.cols() + i)] = static_cast<float>(sign * vector[i]);
    const double square = squares[static_cast<std::size_t>(r)];
    result.singular_values.push_back(std::sqrt(square));
    kept += square;
  }
  result.energy = total > 0.0 ? std::min(1.0, kept / total) : 1.0;
  return result;
}

Matrix normal_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  SplitMix64 random(seed);
  Matrix out(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) {
    // Box and Muller; 1 - uniform() is never 0.
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
    out.data()[i] = radius * std::cos(2.0 * std::numbers::pi * random.uniform());
  }
  return out;
}

void check(MatView<const float> rows, SubspaceSize size) {
  KVA_CHECK(rows.rows > 0 && rows.cols > 0, "rows to fit a subspace to");
  KVA_CHECK(size.rank > 0 || (size.energy > 0.0 && size.energy <= 1.0), "a rank or an energy");
}

}  // namespace

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
  return subspace_of(found.values, total, found.vectors, rank);
}

Subspace randomized_subspace(MatView<const float> rows, SubspaceSize size, uint64_t seed) {
  check(rows, size);
  const Matrix x(rows);
  const int64_t most = std::min(x.rows(), x.cols());
  const double total = squared_norm(x);
  constexpr int64_t kFirstGuess = 32;  // of the rank, where an energy is asked for
  for (int64_t guess = size.rank > 0 ? size.rank : kFirstGuess;; guess *= 2) {
    const int64_t directions = std::min(most, guess + kSubspaceOversampling);
    Matrix range = product(normal_matrix(directions, x.rows(), seed), x);
    orthonormalize(range);
    for (int64_t i = 0; i < kSubspacePowerIterations; ++i) {
      range = product(product(range, x, true), x);
      orthonormalize(range);
    }
    const EigenPairs found = eigen(gram(product(range, x, true), false));
    const int64_t rank = rank_of(found.values, total, size);
    if (rank > guess && directions < most) continue;
    return subspace_of(found.values, total, product(found.vectors, range), std::min(rank, directions));
  }
}

}  // namespace kva
