#include "kernels/directions.h"

#include "kernels/check.h"
#include "kernels/direction_math.h"

namespace kva {

void directions_between(MatView<const float> lower, MatView<const float> upper, double share,
                        MatView<float> out) {
  KVA_CHECK(
      lower.rows == out.rows && upper.rows == out.rows && lower.cols == out.cols && upper.cols == out.cols,
      "directions between rows of one shape");
  for (int64_t row = 0; row < out.rows; ++row)
    direction_between([&](int32_t i) { return lower.at(row, i); },
                      [&](int32_t i) { return upper.at(row, i); }, static_cast<int32_t>(out.cols), share,
                      [&](int32_t i, float x) { out.at(row, i) = x; });
}

}  // namespace kva
