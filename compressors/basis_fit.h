// Bases fitted to pages of a sequence, and what they leave of others: on the device that has the pages, where
// those are dense there, else from their numbers on the host.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compressors/basis_group.h"
#include "compressors/step.h"
#include "compressors/subspace.h"

namespace kva {

// Pages [first, end) of a group.
struct GroupFit {
  const BasisGroup* group = nullptr;
  int64_t first = 0;
  int64_t end = 0;
  SubspaceSize size;
  uint64_t seed = 0;
};

// One for each; of rank 0 where the pages have no tokens. Throws InputError, naming cell and position, for
// numbers that are not finite, and when a device is out of memory.
std::vector<Subspace> fit_groups(const StepContext& context, SequenceId sequence,
                                 std::span<const GroupFit> fits, bool randomized);

struct GroupBasis {
  const BasisGroup* group = nullptr;
  const LowRankBasis* basis = nullptr;
};

// LowRankBasis::relative_residual() of each group's page: of the draft's rows where it has read them, else of
// the cache's. Throws as fit_groups(), and for coefficients beyond f16.
std::vector<double> page_residuals(const StepContext& context, SequenceId sequence, int64_t page,
                                   std::span<const GroupBasis> groups, const Draft* draft = nullptr);

}  // namespace kva
