#include "kernels/hadamard.h"

#include <cmath>

#include "kernels/check.h"

namespace kva {

void hadamard_rows(MatView<float> rows) {
  KVA_CHECK(rows.cols > 0 && (rows.cols & (rows.cols - 1)) == 0, "a power of two of columns");
  const float scale = 1.0f / std::sqrt(static_cast<float>(rows.cols));
  for (int64_t r = 0; r < rows.rows; ++r) {
    float* row = rows.row(r);
    for (int64_t half = 1; half < rows.cols; half *= 2) {
      for (int64_t block = 0; block < rows.cols; block += 2 * half) {
        float* a = row + block;
        float* b = a + half;
        for (int64_t i = 0; i < half; ++i) {
          const float sum = a[i] + b[i];
          b[i] = a[i] - b[i];
          a[i] = sum;
        }
      }
    }
    for (int64_t i = 0; i < rows.cols; ++i) row[i] *= scale;
  }
}

}  // namespace kva
