// Redundancy as the context grows: the share of the pages so far that resemble an earlier page of the same
// prompt.
#pragma once

#include <cstdint>
#include <vector>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/grouping.h"

namespace kva {

// The threshold of growth and of the redundancy statistic between sets.
inline constexpr double kReferenceThreshold = 0.9;

class Growth {
 public:
  Growth(const Grouping& grouping, int page_tokens);

  // One layer; `shuffled` has its tokens shuffled within the sets.
  void add(const AllPairs& real, const AllPairs& shuffled);

  // One row a set that has pages, over the layers added. At most kMaxPoints points a row.
  std::vector<GrowthRow> rows(SideBasis side) const;
  static constexpr int64_t kMaxPoints = 64;

 private:
  // [page of its prompt]: how many pages there were, and how many had an earlier partner.
  struct SetCounts {
    std::vector<int64_t> pages, real, shuffled;
  };

  const Grouping& grouping_;
  int page_tokens_;
  std::vector<SetCounts> sets_;
};

}  // namespace kva
