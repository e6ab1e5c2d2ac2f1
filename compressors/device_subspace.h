// The subspaces of compressors/subspace.h of rows that lie on a device, found there: nothing but vectors,
// singular values and lengths comes to the host.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compressors/subspace.h"
#include "kernels/device_page.h"
#include "runtime/backend/backend.h"

namespace kva {

// A token's numbers are those of `cells` dense rows side by side.
struct JoinedRows {
  SideKind kind = SideKind::kF16;  // of all rows
  int32_t cells = 1;
  int32_t width = 0;                   // of a cell
  std::vector<const std::byte*> rows;  // [tokens, cells]: where they are on the device

  int64_t tokens() const { return std::ssize(rows) / cells; }
  int64_t joined() const { return int64_t{cells} * width; }
};

struct DeviceFit {
  JoinedRows rows;  // at least one token
  SubspaceSize size;
  uint64_t seed = 0;  // of randomized ones
};

// One for each fit, as exact_subspace() and randomized_subspace() find it but for rounding: all products are
// in f64 here (on the GPUs that this is for they are as fast as in f32), also those that the CPU makes in
// f32, so that a fall of 1e6 within the rank is not lost. Signs and the rank that an energy asks for are
// settled by the same code. rank 0: some row is not finite.
//
// Fits of one shape are made together, as many as kMostFitTogether numbers of rows are. Memory for the call,
// in f64: the rows; the square of the smaller of tokens and joined width, or of a randomized fit's
// directions, and what the library takes for its eigenvectors; directions times tokens and joined width. The
// same rows and seeds give the same bits on the same device. Throws InputError when out of memory; used by
// one thread at a time.
inline constexpr int64_t kMostFitTogether = int64_t{1} << 24;
std::vector<Subspace> subspaces_on_device(Backend& backend, std::span<const DeviceFit> fits, bool randomized);

}  // namespace kva
