#include "tests/kernels/lane_solver.h"

#include <cblas.h>
#include <lapacke.h>

#include <vector>

#include "kernels/check.h"

namespace kva {

void solve_on_host(const MatrixProduct& product) {
  const int64_t a_stride = product.a_stride > 0 ? product.a_stride : product.rows * product.inner;
  for (int64_t i = 0; i < product.count; ++i)
    cblas_dgemm(CblasRowMajor, product.transpose_a ? CblasTrans : CblasNoTrans,
                product.transpose_b ? CblasTrans : CblasNoTrans, static_cast<blasint>(product.rows),
                static_cast<blasint>(product.cols), static_cast<blasint>(product.inner), product.factor,
                product.a + i * a_stride,
                static_cast<blasint>(product.transpose_a ? product.rows : product.inner),
                product.b + i * product.inner * product.cols,
                static_cast<blasint>(product.transpose_b ? product.inner : product.cols), 0.0,
                product.out + i * product.rows * product.cols, static_cast<blasint>(product.cols));
}

void solve_on_host(const OrthonormalJob& job) {
  const auto length = static_cast<lapack_int>(job.length);
  const auto rows = static_cast<lapack_int>(job.rows);
  std::vector<double> factors(static_cast<std::size_t>(rows));
  for (int64_t i = 0; i < job.count; ++i) {
    double* matrix = job.matrices + i * job.rows * job.length;
    KVA_CHECK(LAPACKE_dgeqrf(LAPACK_COL_MAJOR, length, rows, matrix, length, factors.data()) == 0, "a QR");
    KVA_CHECK(LAPACKE_dorgqr(LAPACK_COL_MAJOR, length, rows, rows, matrix, length, factors.data()) == 0,
              "its Q");
  }
}

void solve_on_host(const EigenJob& job) {
  const auto size = static_cast<lapack_int>(job.size);
  for (int64_t i = 0; i < job.count; ++i)
    KVA_CHECK(LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', size, job.matrices + i * job.size * job.size, size,
                             job.values + i * job.size) == 0,
              "eigenvectors");
}

}  // namespace kva
