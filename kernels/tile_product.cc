#include "kernels/tile_product.h"

#include <cblas.h>

#include <mutex>

namespace kva {
namespace {

// The pool's workers each call BLAS; threads of its own would only get in their way.
void keep_blas_single_threaded() {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
}

void product(CBLAS_TRANSPOSE transpose_b, MatView<const float> a, MatView<const float> b, float beta,
             MatView<float> out) {
  keep_blas_single_threaded();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, transpose_b, static_cast<blasint>(out.rows),
              static_cast<blasint>(out.cols), static_cast<blasint>(a.cols), 1.0f, a.data,
              static_cast<blasint>(a.stride), b.data, static_cast<blasint>(b.stride), beta, out.data,
              static_cast<blasint>(out.stride));
}

}  // namespace

void tile_product_transposed(MatView<const float> a, MatView<const float> b, MatView<float> out) {
  KVA_CHECK(a.cols == b.cols && out.rows == a.rows && out.cols == b.rows, "shapes of a product");
  product(CblasTrans, a, b, 0.0f, out);
}

void tile_product_add(MatView<const float> a, MatView<const float> b, MatView<float> out) {
  KVA_CHECK(a.cols == b.rows && out.rows == a.rows && out.cols == b.cols, "shapes of a product");
  product(CblasNoTrans, a, b, 1.0f, out);
}

}  // namespace kva
