// Sides as coefficients on a basis that spans a sequence, x ≈ c B: of one cell, or of a group of cells whose
// rows are joined and share one run of coefficients (xKV, arXiv 2503.18893).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/views.h"
#include "runtime/kv/codec.h"
#include "runtime/kv/row_projection.h"
#include "runtime/kv/side_memory.h"

namespace kva {

// The basis B, f16, in side memory: charged as long as a codec that reads with it lives. Made and destroyed
// by one thread at a time; all calls are thread-safe.
class LowRankBasis : public RowProjection, public std::enable_shared_from_this<LowRankBasis> {
 public:
  // vectors: [rank, cells * width], orthonormal rows. Throws InputError when out of memory.
  LowRankBasis(std::shared_ptr<SideMemory> memory, MatView<const float> vectors, int64_t cells);

  // As another basis stored it: `stored` holds rank * cells * width numbers.
  LowRankBasis(std::shared_ptr<const SideArray> stored, int64_t rank, int64_t cells);

  int64_t rank() const override { return rank_; }
  int64_t cells() const override { return cells_; }
  int64_t width() const override { return width_; }
  DeviceBasis device_basis() const override { return {memory_.get(), 0}; }
  int64_t bytes() const { return memory_->bytes(); }
  const SideArray& array() const { return *memory_; }
  std::span<const std::byte> stored() const { return bytes_of(*memory_); }
  // The cell's part of each vector: [rank, width] f16.
  const std::byte* part(int64_t cell) const;
  bool same_numbers(const LowRankBasis& other) const;

  // Coefficients [tokens, rank] with the least squared error of rows [tokens, cells * width]. B is rounded
  // and thus not quite orthonormal; what x Bᵀ loses by that, 2^-11, is put back. Returns the squared length
  // of rows - x Bᵀ B. Throws InputError for a coefficient that is not finite or outside f16's range.
  double coefficients(MatView<const float> rows, MatView<float> coefficients) const;
  void project(MatView<const float> rows, MatView<float> coordinates) const override {
    coefficients(rows, coordinates);
  }
  // ‖x - x Bᵀ B‖ / ‖x‖ over all rows; 0 for rows of zeros.
  double relative_residual(MatView<const float> rows) const;

  // For a basis of one cell: coefficients stored by `inner`. The same inner codec gives the same codec, as
  // long as someone holds it. Throws InputError where `inner` cannot hold rows of so many numbers.
  std::shared_ptr<const SideCodec> codec(std::shared_ptr<const SideCodec> inner) const;
  // For cell `cell` of a group: no bytes of its own; the base holds the group's coefficients [tokens, rank].
  std::shared_ptr<const SideCodec> part_codec(int64_t cell) const;

 private:
  std::vector<float> joined() const;  // [rank, cells * width]

  int64_t rank_;
  int64_t cells_;
  int64_t width_;
  std::shared_ptr<const SideArray> memory_;  // [cells, rank, width] f16
  mutable std::mutex mutex_;
  mutable std::map<const void*, std::weak_ptr<const SideCodec>> codecs_;  // by inner codec, or by part
};

}  // namespace kva
