// How far rows that were read back are from those that were stored.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace kva {

inline double length_of(const std::vector<float>& values) {
  double sum = 0.0;
  for (const float value : values) sum += double{value} * value;
  return std::sqrt(sum);
}

// ‖got − expected‖ ÷ ‖expected‖
inline double relative_error(const std::vector<float>& got, const std::vector<float>& expected) {
  std::vector<float> difference(got.size());
  for (std::size_t i = 0; i < got.size(); ++i) difference[i] = got[i] - expected[i];
  return length_of(difference) / length_of(expected);
}

}  // namespace kva
