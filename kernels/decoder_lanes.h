// The decoder's steps between its products, as one lane of a warp or one thread takes them: the device
// launches them, the host runs them in tests (the Warp concept is in kernels/attention_keys.h).
//
// Rows are numbers of any DType, read and written by kernels/value_math.h; all arithmetic is f32.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/dtype.h"
#include "kernels/host_device.h"
#include "kernels/value_math.h"
#include "kernels/weight_view.h"

namespace kva {

// Rows of numbers on the device; row r begins at element r * stride. Owns nothing.
struct DeviceRows {
  void* data = nullptr;
  DType type = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  KVA_HOST_DEVICE float at(int64_t row, int64_t col) const {
    return stored_value(data, type, row * stride + col);
  }
  KVA_HOST_DEVICE void put(int64_t row, int64_t col, float value) const {
    store_value(value, type, data, row * stride + col);
  }

  friend bool operator==(const DeviceRows&, const DeviceRows&) = default;
};

// What kernels/norm.h computes. centred: layer_norm(), else rms_norm(). weight, bias: [x.cols] f32; bias may
// be null. out may be x itself.
struct NormJob {
  DeviceRows x;
  DeviceRows out;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0.0f;
  bool centred = false;

  friend bool operator==(const NormJob&, const NormJob&) = default;
};

template <class Warp>
KVA_LANE_CODE inline float warp_sum(Warp& warp, float value) {
  for (int mask = 16; mask > 0; mask /= 2) value += warp.shuffle_xor(value, mask);
  return value;
}

template <class Warp>
KVA_LANE_CODE void norm_row(Warp& warp, const NormJob& job, int64_t row) {
  const auto count = static_cast<float>(job.x.cols);
  float mean = 0.0f;
  if (job.centred) {
    for (int64_t c = warp.lane(); c < job.x.cols; c += 32) mean += job.x.at(row, c);
    mean = warp_sum(warp, mean) / count;
  }
  float squares = 0.0f;
  for (int64_t c = warp.lane(); c < job.x.cols; c += 32) {
    const float value = job.x.at(row, c) - mean;
    squares = fmaf(value, value, squares);
  }
  const float scale = 1.0f / sqrtf(warp_sum(warp, squares) / count + job.eps);
  for (int64_t c = warp.lane(); c < job.x.cols; c += 32)
    job.out.put(row, c,
                fmaf((job.x.at(row, c) - mean) * scale, job.weight[c], job.bias ? job.bias[c] : 0.0f));
}

KVA_HOST_DEVICE inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// kernels/activation.h's functions. 0.5 (1 + tanh(u)) = sigmoid(2u) and 0.5 (1 + erf(z)) = 0.5 erfc(-z) keep
// their relative precision for negative x.
KVA_HOST_DEVICE inline float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::kRelu: return x > 0.0f ? x : 0.0f;
    case Activation::kGeluTanh: return x * sigmoid(1.5957691216057308f * fmaf(0.044715f, x * x * x, x));
    case Activation::kGeluErf: return x * (0.5f * erfcf(-0.70710678f * x));
    case Activation::kSilu: return x * sigmoid(x);
  }
  return x;
}

// out = f(x) * up, or f(x) where `up` has no data. All of x's shape.
struct ActivationJob {
  Activation activation = Activation::kSilu;
  DeviceRows x;
  DeviceRows up;
  DeviceRows out;

  friend bool operator==(const ActivationJob&, const ActivationJob&) = default;
};

KVA_HOST_DEVICE inline void activate_one(const ActivationJob& job, int64_t row, int64_t col) {
  const float value = activated(job.activation, job.x.at(row, col));
  job.out.put(row, col, job.up.data ? value * job.up.at(row, col) : value);
}

// x = (x + y) * factor; no y: x * factor.
struct SumJob {
  DeviceRows x;
  DeviceRows y;
  float factor = 1.0f;

  friend bool operator==(const SumJob&, const SumJob&) = default;
};

KVA_HOST_DEVICE inline void add_one(const SumJob& job, int64_t row, int64_t col) {
  const float sum = job.y.data ? job.x.at(row, col) + job.y.at(row, col) : job.x.at(row, col);
  job.x.put(row, col, sum * job.factor);
}

// Weight (row, col) of codes [rows, cols] with scales, as WeightView has them.
KVA_HOST_DEVICE inline float coded_weight(const void* codes, const float* scales, int64_t cols, int64_t row,
                                          int64_t col) {
  return static_cast<float>(static_cast<const int8_t*>(codes)[row * cols + col]) *
         scales[row * int8_groups(cols) + col / kInt8Group];
}

// All of some weights with scales in f32. out: [weights.rows, weights.cols].
struct WidenJob {
  WeightView weights;
  float* out = nullptr;
};

KVA_HOST_DEVICE inline void widen_one(const WidenJob& job, int64_t row, int64_t col) {
  job.out[row * job.weights.cols + col] =
      coded_weight(job.weights.data, job.weights.scales, job.weights.cols, row, col);
}

// out row r = table row indices[r], added to it where `adds`. Where scales are given, the table is codes.
struct GatherJob {
  DeviceRows table;
  const int32_t* indices = nullptr;
  DeviceRows out;
  bool adds = false;
  const float* scales = nullptr;

  friend bool operator==(const GatherJob&, const GatherJob&) = default;
};

KVA_HOST_DEVICE inline void gather_one(const GatherJob& job, int64_t row, int64_t col) {
  const float value = job.scales
                          ? coded_weight(job.table.data, job.scales, job.table.cols, job.indices[row], col)
                          : job.table.at(job.indices[row], col);
  job.out.put(row, col, job.adds ? job.out.at(row, col) + value : value);
}

// out = x in the type of `out`. Of x's shape.
struct CastJob {
  DeviceRows x;
  DeviceRows out;

  friend bool operator==(const CastJob&, const CastJob&) = default;
};

KVA_HOST_DEVICE inline void cast_one(const CastJob& job, int64_t row, int64_t col) {
  job.out.put(row, col, job.x.at(row, col));
}

// Rotates heads in place as Rope::rotate_rows(): row r holds x.cols / head_dim heads and stands at
// positions[r]. inverse_frequencies: [rotary_dim / 2], scaling applied.
struct RopeJob {
  DeviceRows x;
  const int64_t* positions = nullptr;
  const float* inverse_frequencies = nullptr;
  int32_t head_dim = 0;
  int32_t rotary_dim = 0;

  friend bool operator==(const RopeJob&, const RopeJob&) = default;
};

struct RotaryTurn {
  float cosine;
  float sine;
};

// The angle rounds to f32 before it is turned into them.
KVA_HOST_DEVICE inline RotaryTurn turn_at(int64_t position, float inverse_frequency) {
  const float angle = static_cast<float>(position) * inverse_frequency;
  return {cosf(angle), sinf(angle)};
}

// A pair of numbers, turned. No product may be fused into the sum: keys are cached as the CPU rotates them,
// up to the cosines and sines.
KVA_HOST_DEVICE inline float turned_first(float first, float second, const RotaryTurn& turn) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(__fmul_rn(first, turn.cosine), __fmul_rn(second, turn.sine));
#else
  return first * turn.cosine - second * turn.sine;
#endif
}
KVA_HOST_DEVICE inline float turned_second(float first, float second, const RotaryTurn& turn) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fmul_rn(second, turn.cosine), __fmul_rn(first, turn.sine));
#else
  return second * turn.cosine + first * turn.sine;
#endif
}

// Pair `pair` of a row counts the pairs of all its heads.
KVA_HOST_DEVICE inline void rotate_one(const RopeJob& job, int64_t row, int64_t pair) {
  const int32_t half = job.rotary_dim / 2;
  const int64_t head = pair / half;
  const auto i = static_cast<int32_t>(pair - head * half);
  const RotaryTurn turn = turn_at(job.positions[row], job.inverse_frequencies[i]);
  const int64_t a = head * job.head_dim + i;
  const float x = job.x.at(row, a);
  const float y = job.x.at(row, a + half);
  job.x.put(row, a, turned_first(x, y, turn));
  job.x.put(row, a + half, turned_second(x, y, turn));
}

}  // namespace kva
