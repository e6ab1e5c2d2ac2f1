// Directions of tokens as MiniCache (arXiv 2405.14366) stores them, token by token, for CPU and CUDA alike.
// Compiled without fused multiply-adds they are the same bits on both: products of two f32 are exact in f64,
// sums run in the order of the channels, and all else is made of operations that IEEE 754 rounds correctly,
// which libraries' sines are not.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"

namespace kva {

// The sine of an angle in [0, pi], within 1e-15.
KVA_HOST_DEVICE inline double sine_of(double angle) {
  constexpr double kPi = 3.14159265358979323846;
  const double x = angle > kPi / 2 ? kPi - angle : angle;
  // Taylor: the first term left out is below 2^-56 of the sum.
  double sum = 0.0;
  for (int n = 23; n >= 3; n -= 2) sum = (1.0 - sum) * (x * x / ((n - 1) * n));
  return x * (1.0 - sum);
}

// The angle in [0, pi] with this cosine in [-1, 1], within 1e-15 of itself.
KVA_HOST_DEVICE inline double angle_of(double cosine) {
  constexpr double kPi = 3.14159265358979323846;
  const double size = fabs(cosine);
  // Tangents of half the angle, of a quarter and of an eighth, which is at most 0.2.
  double tangent = sqrt((1.0 - size) / (1.0 + size));
  for (int i = 0; i < 2; ++i) tangent = tangent / (1.0 + sqrt(1.0 + tangent * tangent));
  double sum = 0.0;
  for (int n = 23; n >= 1; n -= 2) sum = 1.0 / n - tangent * tangent * sum;
  const double angle = 8.0 * (tangent * sum);
  return cosine < 0.0 ? kPi - angle : angle;
}

// Below this sine the interpolation divides by next to nothing; the straight line is the same there.
inline constexpr double kSmallSine = 1e-6;

// The direction between rows a and b of `width` numbers at t, of length 1: spherical interpolation of their
// unit vectors at their angle W (equation 3),
//   e = sin((1-t) W) / sin W a/|a| + sin(t W) / sin W b/|b|.
// A zero row leaves the other's direction. a(i), b(i): number i; out(i, x) takes number i.
template <class A, class B, class Out>
KVA_LANE_CODE void direction_between(const A& a, const B& b, int32_t width, double t, const Out& out) {
  double squares_a = 0.0;
  double squares_b = 0.0;
  double product = 0.0;
  for (int32_t i = 0; i < width; ++i) {
    const double of_a = static_cast<double>(a(i));
    const double of_b = static_cast<double>(b(i));
    squares_a += of_a * of_a;
    squares_b += of_b * of_b;
    product += of_a * of_b;
  }
  const double length_a = sqrt(squares_a);
  const double length_b = sqrt(squares_b);
  double cosine = 1.0;
  if (length_a > 0.0 && length_b > 0.0) {
    cosine = product / (length_a * length_b);
    cosine = cosine < -1.0 ? -1.0 : cosine > 1.0 ? 1.0 : cosine;
  }
  const double angle = angle_of(cosine);
  const double sine = sine_of(angle);
  double by_a = sine > kSmallSine ? sine_of((1.0 - t) * angle) / sine : 1.0 - t;
  double by_b = sine > kSmallSine ? sine_of(t * angle) / sine : t;
  by_a = length_a > 0.0 ? by_a / length_a : 0.0;
  by_b = length_b > 0.0 ? by_b / length_b : 0.0;
  const auto number = [&](int32_t i) {
    return by_a * static_cast<double>(a(i)) + by_b * static_cast<double>(b(i));
  };
  double squares = 0.0;
  for (int32_t i = 0; i < width; ++i) {
    const double value = number(i);
    squares += value * value;
  }
  const double length = squares > 0.0 ? sqrt(squares) : 1.0;
  for (int32_t i = 0; i < width; ++i)
    out(i, static_cast<float>(static_cast<double>(static_cast<float>(number(i))) / length));
}

// A row beside a direction.
struct AlongDirection {
  double length = 0.0;   // of the row
  double unit = 0.0;     // of the direction
  double product = 0.0;  // of the two

  // By which the direction is to be multiplied to be as long as the row.
  KVA_HOST_DEVICE float factor() const { return static_cast<float>(unit > 0.0 ? length / unit : 0.0); }
  // The cosine of the angle between them; 1 where one of them is zero: nothing is lost then.
  KVA_HOST_DEVICE double closeness() const {
    const double lengths = length * unit;
    return lengths > 0.0 ? product / lengths : 1.0;
  }
  // Whether f16 has a length for it.
  KVA_HOST_DEVICE bool can_be_stored() const { return length <= 1.7e308 && !(factor() > 65504.0f); }
};

// row(i): number i.
template <class Row>
KVA_LANE_CODE AlongDirection along_direction(const Row& row, const float* direction, int32_t width) {
  double squares = 0.0;
  double unit_squares = 0.0;
  double product = 0.0;
  for (int32_t i = 0; i < width; ++i) {
    const double x = static_cast<double>(row(i));
    const double e = static_cast<double>(direction[i]);
    squares += x * x;
    unit_squares += e * e;
    product += x * e;
  }
  return {sqrt(squares), sqrt(unit_squares), product};
}

}  // namespace kva
