// What a basis leaves of pages that lie on a device, measured there.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "compressors/basis_group.h"
#include "compressors/device_subspace.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

// The joined rows that read_group() reads, where they lie: on the cache's device. None where a page of them
// is not dense, where the cells' pages are of several types, or where there are no tokens.
std::optional<JoinedRows> rows_on_device(const KvCache& cache, SequenceId sequence, const BasisGroup& group,
                                         int64_t first, int64_t pages);

// Rows and the basis that they are to be on.
struct BasedRows {
  JoinedRows rows;
  const LowRankBasis* basis = nullptr;
};

// LowRankBasis::relative_residual() of each; nothing where that of some may throw. Two numbers of each come
// to the host. Memory for the call: in f32, the rows and their coefficients, of 16 MiB of them at a time.
// Throws InputError when out of memory.
std::optional<std::vector<double>> residuals_on_device(Backend& backend, std::span<const BasedRows> rows);

}  // namespace kva
