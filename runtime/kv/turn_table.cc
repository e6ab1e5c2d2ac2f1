#include "runtime/kv/turn_table.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace kva {

TurnTable::TurnTable(Backend& backend, std::optional<Rope> rope)
    : backend_(backend), rope_(std::move(rope)) {}

void TurnTable::reserve(int64_t positions) {
  if (!rope_ || positions <= positions_) return;
  const int64_t row_bytes = rope_->rotary_dim() * int64_t{sizeof(float)};
  const int64_t grown = std::max<int64_t>({positions, positions_ + positions_ / 2, 256});
  Buffer values(backend_, grown * row_bytes, "rotary position table");
  if (positions_ > 0) backend_.copy(values.data(), values_.data(), positions_ * row_bytes);
  for (int64_t p = positions_; p < grown; ++p)
    rope_->turns_at(p, reinterpret_cast<float*>(values.data() + p * row_bytes));
  values_ = std::move(values);
  positions_ = grown;
}

void TurnTable::rotate(MatView<float> rows, int64_t first, int64_t step) const {
  if (!rope_ || rows.rows == 0) return;
  KVA_CHECK(first >= 0 && first + (rows.rows - 1) * step < positions_, "position outside the rotary table");
  const int64_t dim = rope_->rotary_dim();
  rope_->rotate_by(rows, reinterpret_cast<const float*>(values_.data()) + first * dim, step * dim);
}

}  // namespace kva
