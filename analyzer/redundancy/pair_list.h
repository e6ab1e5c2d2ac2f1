// Similarities of a given list of page pairs: the random control, and the same page in two layers.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "analyzer/redundancy/page_matrix.h"

namespace kva {

class PairList {
 public:
  // Pair k is page k of x with page partners[k] of y; a partner of -1 is left out (and must not be asked
  // for). x and y may be the same matrix.
  PairList(const PageMatrix& x, const PageMatrix& y, std::span<const int64_t> partners, int head,
           ThreadPool& pool);

  // Over pairs [first, last).
  PairSummary summary(Metric metric, int64_t first, int64_t last, std::span<const float> thresholds) const;

 private:
  std::array<std::vector<float>, kMetrics> values_;
};

}  // namespace kva
