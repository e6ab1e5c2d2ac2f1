// Views: a pointer, a shape and a stride. They never own, and stay valid as long as the owner does.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/check.h"

namespace kva {

// A row-major matrix view: element (r, c) is data[r * stride + c]; stride >= cols, in elements.
template <typename T>
struct MatView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  MatView() = default;
  MatView(T* data_, int64_t rows_, int64_t cols_) : MatView(data_, rows_, cols_, cols_) {}
  MatView(T* data_, int64_t rows_, int64_t cols_, int64_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {
    KVA_CHECK(rows >= 0 && cols >= 0 && stride >= cols, "bad matrix view");
  }
  // A mutable view converts to a read-only one.
  template <typename U>
  requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>) MatView(const MatView<U>& other)
      : MatView(other.data, other.rows, other.cols, other.stride) {}  // NOLINT

  T* row(int64_t r) const { return data + r * stride; }
  T& at(int64_t r, int64_t c) const { return data[r * stride + c]; }
  MatView row_range(int64_t first, int64_t count) const {
    KVA_CHECK(first >= 0 && count >= 0 && first + count <= rows, "row range outside the view");
    return MatView(row(first), count, cols, stride);
  }
  MatView col_range(int64_t first, int64_t count) const {
    KVA_CHECK(first >= 0 && count >= 0 && first + count <= cols, "column range outside the view");
    return MatView(data + first, rows, count, stride);
  }
};

}  // namespace kva
