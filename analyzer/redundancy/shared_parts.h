// What sharing pages of one layer and side would free, found on the CPU or on a device.
#pragma once

#include <vector>

#include "analyzer/redundancy/clusters.h"
#include "analyzer/redundancy/cover.h"
#include "analyzer/redundancy/layer_pass.h"
#include "analyzer/redundancy/page_matrix.h"

namespace kva {

// Each of the pages as they are, and with their tokens shuffled.
struct SharedParts {
  Clusters clusters, shuffled_clusters;
  std::vector<Cover> covers, shuffled_covers;  // of each head
  DuplicateRow duplicates;                     // `stored` sides only
};

// stored: whether `side` is as the page set keeps it.
SharedParts find_shared_parts(const AnalysisContext& context, int layer, SideBasis side, bool stored,
                              const PageMatrix& real, const PageMatrix& shuffled);

}  // namespace kva
