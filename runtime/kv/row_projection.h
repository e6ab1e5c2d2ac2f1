// Rows of several page sides, side by side, that become coefficients on a basis that they share.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/device_page.h"
#include "kernels/views.h"
#include "runtime/kv/codec.h"

namespace kva {

// Immutable; thread-safe.
class RowProjection {
 public:
  virtual ~RowProjection() = default;

  virtual int64_t rank() const = 0;
  virtual int64_t cells() const = 0;  // sides that stand side by side
  virtual int64_t width() const = 0;  // numbers of a token in each
  // f16 [cells, rank, width].
  virtual DeviceBasis device_basis() const = 0;
  // Coefficients [tokens, rank] of rows [tokens, cells * width]. Throws InputError for one that is not finite
  // or outside f16's range.
  virtual void project(MatView<const float> rows, MatView<float> coefficients) const = 0;
};

// Whether coefficients are stored in this format number by number, as they are.
inline bool holds_rows(const std::optional<SideFormat>& format) {
  return format && !is_packed(format->kind) && !format->hadamard && !format->on_basis;
}

}  // namespace kva
