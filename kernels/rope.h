// Rotary position embedding (RoFormer, arXiv 2104.09864) in the half-split layout of Hugging Face: element i
// of a head is rotated together with element i + rotary_dim / 2.
//
// Everything is f32 in the order of Hugging Face transformers: inverse frequencies, then angle = position *
// inverse frequency rounded to f32, then cos and sin of that angle. At position 131,072 the rounding of the
// angle alone is up to 2^-8, so rotating by p - s after rotating by s agrees with rotating by p to that bound
// only; below position 4,096 the two agree to 2^-12.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/views.h"

namespace kva {

struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3 } kind = Kind::kNone;
  double factor = 1.0;
  // llama3 only.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_positions = 8192;
};

// The rotation of one model: inverse frequencies, f32 as Hugging Face computes them. Immutable, thread-safe.
class Rope {
 public:
  // rotary_dim is even and <= head_dim; elements beyond it are left alone.
  Rope(int head_dim, int rotary_dim, double theta, const RopeScaling& scaling);
  // From rotary_dim / 2 inverse frequencies, scaling applied.
  Rope(int head_dim, std::vector<float> inverse_frequencies);

  int head_dim() const { return head_dim_; }
  int rotary_dim() const { return rotary_dim_; }
  std::span<const float> inverse_frequencies() const { return inverse_frequencies_; }

  // Rotates one head (head_dim values) in place by `position`; a negative position rotates back.
  void rotate(float* head, int64_t position) const;

  // Rotates rows in place: row r holds heads x head_dim values and stands at positions[r].
  void rotate_rows(MatView<float> rows, std::span<const int64_t> positions) const;

  // For callers who rotate many heads by the same positions. turns: rotary_dim values, the cosines of the
  // rotary_dim / 2 angles and then their sines.
  void turns_at(int64_t position, float* turns) const;
  // Rotates rows of one head each, row r by turns + r * turns_stride (0: all by the same).
  void rotate_by(MatView<float> rows, const float* turns, int64_t turns_stride) const;

 private:
  int head_dim_;
  int rotary_dim_;
  std::vector<float> inverse_frequencies_;
};

}  // namespace kva
