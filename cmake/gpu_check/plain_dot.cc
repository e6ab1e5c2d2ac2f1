// dot_tile() where there is no oneDNN: the plain sums, for tests.
#include "kernels/similarity.h"

namespace kva {

void dot_tile(MatView<const float> a, MatView<const float> b, MatView<float> out) {
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < b.rows; ++j) {
      float sum = 0.0f;
      for (int64_t k = 0; k < a.cols; ++k) sum += a.at(i, k) * b.at(j, k);
      out.at(i, j) = sum;
    }
}

}  // namespace kva
