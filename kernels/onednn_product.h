// Products by oneDNN with strides of their own, of f32 or bf16 numbers summed in f32.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/dtype.h"

namespace kva {

// out [rows, cols] = x [rows, inner] · weights [cols, inner]ᵀ, and the bias of each column. Strides are in
// numbers, at least the row's length.
struct ProductForm {
  int64_t rows, cols, inner, x_stride, weights_stride, out_stride;
  DType type = DType::kF32;  // of x and weights: kF32 or kBF16
  bool bias = false;

  bool operator<(const ProductForm& other) const;
};

// Whether the processor multiplies bf16 (AVX512-BF16, AMX) and oneDNN has the product for it: elsewhere it
// throws. DNNL_MAX_CPU_ISA in the environment can take that away. Always the same in a process.
bool multiplies_bf16();

// What products need besides their operands: primitives, made when a form is first seen. Used by one thread
// at a time. A product's bits depend on its form and the processor alone.
class OnednnProducts {
 public:
  OnednnProducts();
  OnednnProducts(OnednnProducts&&) noexcept;
  ~OnednnProducts();

  // rows, cols and inner are at least 1; kBF16 only where multiplies_bf16(). bias: [cols], null without one.
  void run(const ProductForm& form, const void* x, const void* weights, const float* bias, float* out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
