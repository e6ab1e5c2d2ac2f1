#include "kernels/tile_product.h"

#include <dnnl.h>

#include <algorithm>

#include "kernels/check.h"

namespace kva {
namespace {

// oneDNN, as it knows every instruction set by itself: the packaged OpenBLAS takes AVX2 kernels on processors
// that are newer than it, at half the speed of AVX-512.
void product(char transpose_b, MatView<const float> a, MatView<const float> b, float beta,
             MatView<float> out) {
  if (out.rows == 0 || out.cols == 0) return;
  if (a.cols == 0) {
    for (int64_t r = 0; beta == 0.0f && r < out.rows; ++r) std::fill_n(out.row(r), out.cols, 0.0f);
    return;
  }
  const dnnl_status_t status = dnnl_sgemm('N', transpose_b, out.rows, out.cols, a.cols, 1.0f, a.data,
                                          a.stride, b.data, b.stride, beta, out.data, out.stride);
  KVA_CHECK(status == dnnl_success, "a product of tiles");
}

}  // namespace

void tile_product_transposed(MatView<const float> a, MatView<const float> b, MatView<float> out) {
  KVA_CHECK(a.cols == b.cols && out.rows == a.rows && out.cols == b.rows, "shapes of a product");
  product('T', a, b, 0.0f, out);
}

void tile_product_add(MatView<const float> a, MatView<const float> b, MatView<float> out) {
  KVA_CHECK(a.cols == b.rows && out.rows == a.rows && out.cols == b.cols, "shapes of a product");
  product('N', a, b, 1.0f, out);
}

}  // namespace kva
