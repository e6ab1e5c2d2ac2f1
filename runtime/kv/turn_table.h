// Cosines and sines of RoPE's angles for the positions in use: every layer and head of a step rotates by the
// same ones.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/rope.h"
#include "runtime/backend/backend.h"

namespace kva {

// Grown by one thread, read by many. The backend outlives it.
class TurnTable {
 public:
  TurnTable(Backend& backend, std::optional<Rope> rope);

  // Makes positions [0, positions) available; nothing to do without RoPE.
  void reserve(int64_t positions);

  bool rotates() const { return rope_.has_value(); }
  // Rotates rows [n, head_dim]: row r by first + r * step, all of them positions below the reserved.
  void rotate(MatView<float> rows, int64_t first, int64_t step) const;

  int64_t held_bytes() const { return values_.held_bytes(); }

 private:
  Backend& backend_;
  std::optional<Rope> rope_;
  int64_t positions_ = 0;
  Buffer values_;  // [positions, rotary_dim] f32
};

}  // namespace kva
