// Products of activations with stored weights: out = x · Wᵀ + bias, accumulated in f32.
//
// Few rows (decode) go through our own kernel, which reads each weight once for all rows and widens 16-bit
// and 8-bit ones exactly: it is bound by memory. There a row's result does not depend on how many rows come
// with it. Many rows (prefill) go through oneDNN in tiles of fixed size:
//   f32   weights as they are;
//   f16   each block of weights is widened to f32 first; the same for int8;
//   bf16  where the CPU multiplies bf16 (AVX512-BF16, AMX), activations are ROUNDED TO BF16 for the product,
//         as other programs do; elsewhere blocks are widened to f32.
// Tiles follow from the shapes alone, so results are bit-equal at any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/dtype.h"
#include "kernels/parallel.h"
#include "kernels/views.h"
#include "kernels/weight_view.h"

namespace kva {

// One product of the input. bias: [weights.rows] or null. out: [input rows, weights.rows], no overlap with
// the input.
struct LinearOp {
  WeightView weights;
  const float* bias = nullptr;
  MatView<float> out;
};

// Up to so many rows the memory-bound kernel is used.
inline constexpr int64_t kFewRows = 16;

// Owns what products need besides their operands: scratch and oneDNN primitives for each worker of the pool.
// Used by one thread at a time; the pool must outlive it.
class Matmul {
 public:
  // hardware_bf16 = false widens bf16 weights to f32 even where the CPU could multiply them.
  explicit Matmul(ThreadPool& pool, bool hardware_bf16 = true);
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  // Several products of the same input x [rows, cols] in one split, Q, K and V say.
  void run(MatView<const float> x, std::span<const LinearOp> ops);

  // Whether many-row products with bf16 weights round their activations here.
  bool rounds_activations(DType weights) const;

  // Scratch held now.
  int64_t workspace_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
